"""Row lineage: from a model version to its training rows, and from a row to everything made from it.

The row manifest `<asset>/<data version>.parquet` lists each row with its outcome in the column `fate`: "kept", the
reason of its rejection, or its split. The manifests of adapters list their training rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from synth_assets.storage.stored_files import naming_damaged, read_table

ADAPTER_SUFFIX = "_adapter"  # name suffix of adapter assets
TAINTED = "tainted"  # tag of a version trained on a recalled row
FATES = pl.Schema({"row_id": pl.String, "asset": pl.String, "data_version": pl.String, "fate": pl.String})


class LineageError(ValueError):
    """A row or a version cannot be traced; the message says what is missing and what to do."""


@dataclass(frozen=True)
class ModelVersion:
    """A version of the registered model and its provenance.

    Args:
        version: its number.
        asset: the adapter asset.
        data_version: data version of the adapter.
        data_versions: data versions of everything upstream, by asset; see `upstream_versions`.
        aliases: aliases that point to it.
        tags: its registry tags.
    """

    version: str
    asset: str
    data_version: str
    data_versions: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Return number, asset and aliases."""
        return f"{self.version} ({', '.join([self.asset, *(f'@{alias}' for alias in self.aliases)])})"

    def trainings(self) -> list[tuple[str, str]]:
        """Return (adapter asset, data version) of each training in the version's history, its own last."""
        upstream = [(name.partition("@")[0], version) for name, version in sorted(self.data_versions.items())]
        return [*((name, v) for name, v in upstream if name.endswith(ADAPTER_SUFFIX)), (self.asset, self.data_version)]


def manifest_path(manifests: Path, asset: str, data_version: str) -> Path:
    """Return the path of the row manifest of an asset's data version."""
    return manifests / asset / f"{data_version}.parquet"


def training_rows(manifests: Path, version: ModelVersion) -> pl.DataFrame:
    """Return the rows of every training of a version: the manifest's columns and `trained`, the adapter asset.

    Includes the rows of the adapter that the training started from.

    Raises:
        LineageError: a manifest is missing.
    """
    parts: list[pl.DataFrame] = []
    for asset, data_version in version.trainings():
        path = manifest_path(manifests, asset, data_version)
        if not path.is_file():
            raise LineageError(
                f"version {version.version}: {asset} {data_version} has no row manifest at {path}: "
                "train it again (synth run)"
            )
        parts.append(read_table(path).with_columns(trained=pl.lit(asset)))
    return pl.concat(parts, how="diagonal_relaxed")


def recalled_rows_of(manifests: Path, version: ModelVersion, recalls: pl.DataFrame) -> pl.DataFrame:
    """Return RECALLS of the rows that a version was trained on; empty if none.

    Raises:
        LineageError: there are recalls, and a manifest of the version is missing.
    """
    if recalls.is_empty():
        return recalls
    rows = training_rows(manifests, version).select("row_id").unique()
    return recalls.join(rows, on="row_id", how="semi", maintain_order="left")


def fates_of(manifests: Path, row_ids: Iterable[str]) -> pl.DataFrame:
    """Return FATES: the outcome of rows in every data version of every asset with a manifest."""
    ids, paths = list(row_ids), _manifests(manifests)
    parts = [
        pl.scan_parquet(path, glob=False)
        .filter(pl.col("row_id").is_in(ids))
        .select("row_id", asset=pl.lit(path.parent.name), data_version=pl.lit(path.stem), fate="fate")
        .unique(maintain_order=True)
        for path in paths
    ]
    with naming_damaged(paths):
        return pl.concat([FATES.to_frame(), *pl.collect_all(parts)])


def find_rows(manifests: Path, prefix: str) -> list[str]:
    """Return the ids that start with `prefix`, of all tables; sorted and unique."""
    paths = _manifests(manifests)
    parts = [
        pl.scan_parquet(path, glob=False).select("row_id").filter(pl.col("row_id").str.starts_with(prefix))
        for path in paths
    ]
    with naming_damaged(paths):
        rows = pl.concat([FATES.to_frame().select("row_id"), *pl.collect_all(parts)])
    return rows["row_id"].unique().sort().to_list()


def one_row(manifests: Path, prefix: str) -> str:
    """Return the id of the single row whose id is `prefix` or starts with it.

    Raises:
        LineageError: no row matches, or more than one.
    """
    matches = find_rows(manifests, prefix) if prefix else []
    if prefix in matches or len(matches) == 1:
        return prefix if prefix in matches else matches[0]
    if not matches:
        raise LineageError(
            f"no row {prefix!r} in any table. Ids are in the column row_id of filtered_instructions and "
            "rejected_instructions, and `synth trace VERSION --export FILE` lists those of a model"
        )
    shown = ", ".join(matches[:5])
    raise LineageError(f"{len(matches)} rows start with {prefix!r} ({shown}, ...): use a longer prefix")


def _manifests(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*.parquet") if not path.name.startswith("."))
