"""SYNTH_HOME and the IO manager that stores assets in it: tables as Parquet, records as JSON, written atomically."""

import re
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import polars as pl

from resources.asset_metadata import presented
from synth_assets.schemas.columns import COLUMNS
from synth_assets.schemas.serialization import to_json
from synth_assets.storage.atomic import sweep_temporaries, write_atomically, write_text
from synth_assets.storage.errors import StorageError
from synth_assets.storage.manifests import content_hash
from synth_assets.storage.retractions import recalls_in_force
from synth_assets.storage.reviews import LOG as REVIEW_LOG
from synth_assets.storage.reviews import reviews_in_force
from synth_assets.storage.row_batches import write_row_groups
from synth_assets.storage.stored_files import read_record, read_table, scan_table

SCRATCH = ".scratch-"  # name prefix of temporary folders
HOME_PAGES = "/home/"  # address of the pages of a home, beside the Dagster UI
ROWS = f"{HOME_PAGES}rows"  # address of the page that shows and reviews rows
PLAYGROUND = f"{HOME_PAGES}playground"  # address of the page that asks models side by side
R = TypeVar("R")

MAX_SHOWN_PARTITIONS = 5  # in a warning
MAX_SHOWN_CHARACTERS = 40  # of each name
ROW_GROUP_ROWS = 8_192  # a reader holds several groups; this many conversations are about 15 MB
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Valid names of assets, partitions, stages and data versions: one path segment, not hidden, not `..`."""


class SynthHome(dg.ConfigurableResource):
    """The folder with all state of a deployment, and the folder of benchmark files."""

    folder: str
    benchmark_folder: str = ""
    copied_databases: str = ""  # folder with copies of the databases of a read-only home

    def root(self) -> Path:
        """Return the folder, creating it and checking that it is writable. Raise StorageError if it is not.

        A home opened read-only (`copied_databases`) is returned as it is.
        """
        folder = Path(self.folder).expanduser().absolute()
        if self.copied_databases:
            return folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise StorageError(
                f"SYNTH_HOME {folder} cannot be written ({error.strerror or error}): make it writable, "
                "or set SYNTH_HOME to a writable folder"
            ) from error
        return folder

    def databases(self) -> Path:
        """Return the folder of MLflow's database and the locks: the home, or the copies of a read-only one."""
        return Path(self.copied_databases) if self.copied_databases else self.root()

    def tables(self) -> Path:
        """Return the folder of tables and records."""
        return self._subfolder("tables")

    def shards(self, stage: str) -> Path:
        """Return the folder of a stage's blocks."""
        return self._subfolder("shards", stage)

    def adapters(self) -> Path:
        """Return the folder of trained adapters, one subfolder each, named by fingerprint."""
        return self._subfolder("adapters")

    def vectors(self) -> Path:
        """Return the folder of computed embeddings, a file for each model; deleting one costs only time."""
        return self._subfolder("vectors")

    def imports(self) -> Path:
        """Return the folder of imported files."""
        return self._subfolder("imports")

    def benchmarks(self) -> Path:
        """Return the folder of benchmark files. Raise StorageError if the configured one does not exist."""
        if not self.benchmark_folder:
            return self._subfolder("benchmarks")
        folder = Path(self.benchmark_folder).expanduser().absolute()
        if not folder.is_dir():
            raise StorageError(f"SYNTH_BENCHMARKS {folder} is not a folder: create it, or set another")
        return folder

    def manifests(self) -> Path:
        """Return the folder of row manifests."""
        return self._subfolder("manifests")

    def leave_row_manifest(self, asset: str, data_version: str, rows: pl.DataFrame) -> str:
        """Write the row manifest of a data version: its rows and their outcomes. Return its path relative to the home.

        Args:
            asset: name of the asset.
            data_version: its data version; an existing manifest is replaced.
            rows: has at least the columns `row_id` and `fate` ("kept", or the reason of the rejection).
        """
        if missing := {"row_id", "fate"} - set(rows.columns):
            raise ValueError(f"the row manifest of {asset} lacks {', '.join(sorted(missing))}")
        path = self._subfolder("manifests", asset) / f"{safe_name(data_version)}.parquet"
        write_atomically(path, lambda temporary: rows.write_parquet(temporary, compression="zstd"))
        return self.relative(path)

    def table_result(
        self,
        asset: str,
        table: pl.LazyFrame | pl.DataFrame,
        metadata: Mapping[str, Any],
        fates: pl.DataFrame | None = None,
    ) -> dg.MaterializeResult:
        """Return the materialisation of a table; its data version is the hash of its content.

        With `fates`, write its row manifest, as `leave_row_manifest` does.
        """
        version = content_hash(table)
        if fates is not None:
            self.leave_row_manifest(asset, version, fates)
        return dg.MaterializeResult(
            asset_key=asset, value=table, data_version=dg.DataVersion(version), metadata=presented(metadata)
        )

    @staticmethod
    def record_result(value: object, data_version: str, metadata: Mapping[str, Any]) -> dg.MaterializeResult:
        """Return the materialisation of a record, or of an asset without a value."""
        result: dict[str, Any] = {} if value is None else {"value": value}
        return dg.MaterializeResult(data_version=dg.DataVersion(data_version), metadata=presented(metadata), **result)

    def card(self, asset: str, data_version: str) -> Path:
        """Return the folder of the dataset card of a data version, with its figures."""
        return self._subfolder("cards", asset, data_version)

    def report(self, data_version: str) -> Path:
        """Return the folder of the report of a comparison's data version, with its figures."""
        return self._subfolder("reports", data_version)

    def recalls(self) -> Path:
        """Return the path of the recall log."""
        return self.root() / "recalls.jsonl"

    def recalled_rows(self) -> pl.DataFrame:
        """Return RECALLS: the currently recalled rows."""
        return recalls_in_force(self.recalls())

    def reviews(self) -> Path:
        """Return the path of the review log."""
        return self.root() / REVIEW_LOG

    def reviewed_rows(self) -> pl.DataFrame:
        """Return REVIEWS: the last decision on each reviewed row."""
        return reviews_in_force(self.reviews())

    @contextmanager
    def scratch(self, stage: str) -> Iterator[Path]:
        """Create a folder for temporary files of a stage, after removing those of killed runs."""
        folder = self.shards(stage)
        sweep_temporaries(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
            yield Path(scratch)

    def record(self, asset: str, kind: type[R]) -> R | None:
        """Return the last stored record of an unpartitioned asset, or None."""
        path = self.tables() / f"{safe_name(asset)}.json"
        return read_record(kind, path) if path.is_file() else None

    def relative(self, path: Path) -> str:
        """Return a path as stored in records: relative to the folder, with forward slashes."""
        return path.absolute().relative_to(Path(self.folder).expanduser().absolute()).as_posix()

    def page(self, path: Path) -> dg.MetadataValue:
        """Return the address of a page of the home in the server that `synth ui` starts."""
        return dg.MetadataValue.url(f"{HOME_PAGES}{self.relative(path)}")

    def _subfolder(self, *names: str) -> Path:
        folder = self.root().joinpath(*(safe_name(name) for name in names))
        if not self.copied_databases:
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def can_name_file(name: str) -> bool:
    """Return whether a name is valid for a file of SYNTH_HOME."""
    return NAME.fullmatch(name) is not None


def safe_name(name: str) -> str:
    """Return `name` if it is a safe path segment. Raise ValueError otherwise."""
    if not can_name_file(name):
        raise ValueError(
            f"{name!r} cannot name a file: expected letters, digits, dot, dash and underscore, "
            "starting with a letter or digit, at most 128 characters"
        )
    return name


class AssetStorage(dg.ConfigurableIOManagerFactory):
    """Stores assets in `tables/` of the home."""

    home: SynthHome

    def create_io_manager(self, context: dg.InitResourceContext) -> "AssetIOManager":
        """Create the IO manager of a step, removing temporary files of killed writers."""
        tables = self.home.tables()
        sweep_temporaries(tables)
        return AssetIOManager(tables)


class AssetIOManager(dg.IOManager):
    """Stores frames as Parquet and records as JSON; the annotation of an input selects the type that is loaded."""

    def __init__(self, tables: Path) -> None:
        """Store assets in `tables`, a folder of SYNTH_HOME."""
        self.tables = tables

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write a LazyFrame (streamed), a DataFrame or a record atomically."""
        partition = context.asset_partition_key if context.has_asset_partitions else None
        path = self.path(context.asset_key, partition)
        if isinstance(obj, pl.LazyFrame | pl.DataFrame):
            path = path.with_name(f"{path.name}.parquet")
            write_atomically(path, _parquet_writer(obj))
            context.add_output_metadata(_table_metadata(path))
        elif is_dataclass(obj) and not isinstance(obj, type):
            path = path.with_name(f"{path.name}.json")
            write_text(path, to_json(obj))
        else:
            raise TypeError(
                f"{context.asset_key.to_user_string()} must return a polars frame or a record of "
                f"synth_assets.schemas.records, got {type(obj).__name__}"
            )
        context.add_output_metadata({"path": path.relative_to(self.tables.parent).as_posix()})

    def load_input(self, context: dg.InputContext) -> object:
        """Read an asset as annotated; `dict[str, T]` loads every materialised partition."""
        kind = context.dagster_type.typing_type
        key = context.asset_key
        if not context.has_asset_partitions:
            return self._load(key, None, kind)
        partitions = list(context.asset_partition_keys)
        if typing.get_origin(kind) is dict:
            return self._load_partitions(context, partitions, typing.get_args(kind)[1])
        if len(partitions) != 1:
            raise StorageError(
                f"{key.to_user_string()} has {len(partitions)} partitions: annotate it as dict[str, pl.LazyFrame]"
            )
        return self._load(key, partitions[0], kind)

    def path(self, key: dg.AssetKey, partition: str | None) -> Path:
        """Return the path of an asset without suffix. Raise ValueError for an unsafe name."""
        parts = [*key.path] if partition is None else [*key.path, partition]
        return self.tables.joinpath(*(safe_name(part) for part in parts))

    def _load_partitions(self, context: dg.InputContext, partitions: list[str], kind: object) -> dict[str, object]:
        key = context.asset_key
        stored = [p for p in partitions if self._stored(key, p) is not None]
        if not stored:
            raise StorageError(_not_materialised(key, None) + "; it has no partition yet")
        if skipped := sorted(p[:MAX_SHOWN_CHARACTERS] for p in set(partitions) - set(stored)):
            more = len(skipped) - MAX_SHOWN_PARTITIONS
            shown = ", ".join([*skipped[:MAX_SHOWN_PARTITIONS], *([f"{more} more"] if more > 0 else [])])
            context.log.warning(f"{key.to_user_string()}: skipped partitions that were never materialised: {shown}")
        return {partition: self._load(key, partition, kind) for partition in stored}

    def _load(self, key: dg.AssetKey, partition: str | None, kind: object) -> object:
        path = self._stored(key, partition)
        if path is None:
            raise StorageError(_not_materialised(key, partition))
        if path.suffix == ".json":
            if not is_dataclass(kind):
                raise TypeError(f"{key.to_user_string()} is a record: annotate the input with its class, got {kind}")
            return read_record(typing.cast("type[Any]", kind), path)
        if kind is pl.DataFrame:
            return read_table(path)
        if kind in (pl.LazyFrame, Any):
            return scan_table(path)
        raise TypeError(f"{key.to_user_string()} is a table: annotate the input as a polars frame, got {kind}")

    def _stored(self, key: dg.AssetKey, partition: str | None) -> Path | None:
        if partition is not None and not can_name_file(partition):
            return None  # the Dagster UI accepts any partition name; such a partition was never stored
        path = self.path(key, partition)
        candidates = (path.with_name(f"{path.name}{suffix}") for suffix in (".parquet", ".json"))
        return next((p for p in candidates if p.is_file()), None)


def _not_materialised(key: dg.AssetKey, partition: str | None) -> str:
    name = key.to_user_string()
    option = f" --partition {partition}" if partition else ""
    title = f"{name}[{partition}]" if partition else name
    return f"{title} was never materialised: run `dg launch --assets {name}{option}`, or materialise it in the UI"


def _parquet_writer(frame: pl.LazyFrame | pl.DataFrame) -> Callable[[Path], None]:
    def write(temporary: Path) -> None:
        if isinstance(frame, pl.LazyFrame):
            write_row_groups(frame, temporary, ROW_GROUP_ROWS)
        else:
            frame.write_parquet(temporary, compression="zstd", row_group_size=ROW_GROUP_ROWS)

    return write


def _table_metadata(path: Path) -> dict[str, Any]:
    scan = pl.scan_parquet(path, glob=False)
    schema = scan.collect_schema()
    columns = [dg.TableColumn(name, str(kind), description=COLUMNS.get(name)) for name, kind in schema.items()]
    return {
        "dagster/row_count": scan.select(pl.len()).collect().item(),
        "dagster/column_schema": dg.TableSchema(columns),
        "bytes": path.stat().st_size,
    }
