"""From a model version to its rows, and from a row to everything it touched, by the manifests of row ids.

A manifest lies under `<asset>/<data version>.parquet` and names each row with its fate: "kept", the reason it was
dropped for, or the split it is in. Those of adapters name the rows they were trained on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from synth_assets.storage.stored_files import naming_damaged, read_table

ADAPTER_SUFFIX = "_adapter"  # of the assets that are adapters
TAINTED = "tainted"  # the tag of a version that was made from a recalled row
FATES = pl.Schema({"row_id": pl.String, "asset": pl.String, "data_version": pl.String, "fate": pl.String})


class LineageError(ValueError):
    """A row or a version cannot be followed; the message says what is missing and what to do."""


@dataclass(frozen=True)
class ModelVersion:
    """A version of the registered model and what it was made from.

    Args:
        version: its number.
        asset: the adapter asset.
        data_version: of the adapter.
        data_versions: of everything upstream, by asset; as `upstream_versions` writes them.
        aliases: that point to it.
        tags: of the registry.
    """

    version: str
    asset: str
    data_version: str
    data_versions: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its number, what made it, and its aliases."""
        return f"{self.version} ({', '.join([self.asset, *(f'@{alias}' for alias in self.aliases)])})"

    def trainings(self) -> list[tuple[str, str]]:
        """(adapter asset, data version) of each training that its weights went through, its own last."""
        upstream = [(name.partition("@")[0], version) for name, version in sorted(self.data_versions.items())]
        return [*((name, v) for name, v in upstream if name.endswith(ADAPTER_SUFFIX)), (self.asset, self.data_version)]


def manifest_path(manifests: Path, asset: str, data_version: str) -> Path:
    """Where the manifest of one version of an asset lies."""
    return manifests / asset / f"{data_version}.parquet"


def training_rows(manifests: Path, version: ModelVersion) -> pl.DataFrame:
    """The rows of every training behind a version: `trained`, the adapter asset, and the columns of its manifest.

    Rows of the adapter that it continues are among them: what those taught it is in its weights.

    Raises:
        LineageError: a manifest is missing, so that nobody can say which rows there were.
    """
    parts: list[pl.DataFrame] = []
    for asset, data_version in version.trainings():
        path = manifest_path(manifests, asset, data_version)
        if not path.is_file():
            raise LineageError(
                f"version {version.version}: {asset} {data_version} left no row manifest at {path}: "
                "train it again (synth run)"
            )
        parts.append(read_table(path).with_columns(trained=pl.lit(asset)))
    return pl.concat(parts, how="diagonal_relaxed")


def recalled_rows_of(manifests: Path, version: ModelVersion, recalls: pl.DataFrame) -> pl.DataFrame:
    """RECALLS of the rows that a version was trained on; empty where it is clean.

    Raises:
        LineageError: rows were recalled, and a manifest that could clear the version is missing.
    """
    if recalls.is_empty():
        return recalls
    rows = training_rows(manifests, version).select("row_id").unique()
    return recalls.join(rows, on="row_id", how="semi", maintain_order="left")


def fates_of(manifests: Path, row_ids: Iterable[str]) -> pl.DataFrame:
    """FATES: what became of rows in every version of every asset that a manifest was left of."""
    wanted, paths = list(row_ids), _manifests(manifests)
    parts = [
        pl.scan_parquet(path, glob=False)
        .filter(pl.col("row_id").is_in(wanted))
        .select("row_id", asset=pl.lit(path.parent.name), data_version=pl.lit(path.stem), fate="fate")
        .unique(maintain_order=True)
        for path in paths
    ]
    with naming_damaged(paths):
        return pl.concat([FATES.to_frame(), *pl.collect_all(parts)])


def find_rows(manifests: Path, given: str) -> list[str]:
    """The row ids that begin with `given`, of any version of any table; sorted, each once."""
    paths = _manifests(manifests)
    parts = [
        pl.scan_parquet(path, glob=False).select("row_id").filter(pl.col("row_id").str.starts_with(given))
        for path in paths
    ]
    with naming_damaged(paths):
        found = pl.concat([FATES.to_frame().select("row_id"), *pl.collect_all(parts)])
    return found["row_id"].unique().sort().to_list()


def one_row(manifests: Path, given: str) -> str:
    """The one row whose id is `given` or begins with it.

    Raises:
        LineageError: there is none, or more than one.
    """
    found = find_rows(manifests, given) if given else []
    if given in found or len(found) == 1:
        return given if given in found else found[0]
    if not found:
        raise LineageError(
            f"no row {given!r} in any table: ids are in the column row_id of filtered_instructions and "
            "rejected_instructions, and `synth trace VERSION --export FILE` lists those of a model"
        )
    shown = ", ".join(found[:5])
    raise LineageError(f"{len(found)} rows begin with {given!r} ({shown}, ...): give more of the id")


def _manifests(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*.parquet") if not path.name.startswith("."))
