"""SYNTH_HOME, and the assets stored in it: tables as Parquet, records as JSON, each whole or not there."""

import re
import tempfile
import typing
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import polars as pl

from synth_assets.schemas.columns import COLUMNS
from synth_assets.schemas.serialization import to_json
from synth_assets.storage.atomic import sweep_temporaries, write_atomically
from synth_assets.storage.errors import StorageError
from synth_assets.storage.row_batches import write_row_groups
from synth_assets.storage.stored_files import read_record, read_table, scan_table

R = TypeVar("R")

SHOWN = 5  # partitions of a warning that names them
SHOWN_CHARACTERS = 40  # of each of their names
ROW_GROUP_ROWS = 8_192  # a reader holds several groups at once; this many conversations are some 15 MB
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What an asset, partition, stage or data version may be called: one path segment, never hidden, never `..`."""


class SynthHome(dg.ConfigurableResource):
    """The folder that holds all state of a deployment, and the one where it keeps files of benchmarks."""

    folder: str
    benchmark_folder: str = ""
    copied_databases: str = ""  # a folder with copies of the databases, where the home itself can only be read

    def root(self) -> Path:
        """The folder, made if missing and proven writable; StorageError before any work where it is not.

        A home that is opened to be read only (`copied_databases`) is returned as it is.
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
                "or set SYNTH_HOME to a folder that is"
            ) from error
        return folder

    def databases(self) -> Path:
        """Where MLflow's database and the locks lie: the folder itself, or the copies of a home that is only read."""
        return Path(self.copied_databases) if self.copied_databases else self.root()

    def tables(self) -> Path:
        """Where the IO manager keeps tables and records."""
        return self._subfolder("tables")

    def shards(self, stage: str) -> Path:
        """Where a stage keeps its blocks of rows."""
        return self._subfolder("shards", stage)

    def adapters(self) -> Path:
        """Where trained adapters lie, one folder each, named by fingerprint."""
        return self._subfolder("adapters")

    def imports(self) -> Path:
        """Where users' own files lie."""
        return self._subfolder("imports")

    def benchmarks(self) -> Path:
        """Where benchmarks' files lie; StorageError where a folder is named that does not exist."""
        if not self.benchmark_folder:
            return self._subfolder("benchmarks")
        folder = Path(self.benchmark_folder).expanduser().absolute()
        if not folder.is_dir():
            raise StorageError(f"SYNTH_BENCHMARKS {folder} is no folder: make it, or name another")
        return folder

    def manifests(self) -> Path:
        """Where each stage leaves the fate of its rows."""
        return self._subfolder("manifests")

    def leave_row_manifest(self, asset: str, data_version: str, rows: pl.DataFrame) -> str:
        """Keep which rows went into one version of `asset` and what became of them; returns where, as records say it.

        Args:
            asset: the asset's name.
            data_version: its data version; a manifest that is there already is replaced by the same one.
            rows: at least the columns `row_id` and `fate` ("kept", or the reason of the drop).
        """
        if missing := {"row_id", "fate"} - set(rows.columns):
            raise ValueError(f"a row manifest has row_id and fate; {asset} gave none of {', '.join(sorted(missing))}")
        path = self._subfolder("manifests", asset) / f"{safe_name(data_version)}.parquet"
        write_atomically(path, lambda temporary: rows.write_parquet(temporary, compression="zstd"))
        return self.relative(path)

    def card(self, asset: str, data_version: str) -> Path:
        """Where the card of one version of a dataset lies, with its figures."""
        return self._subfolder("cards", asset, data_version)

    def report(self, data_version: str) -> Path:
        """Where the report of one version of the comparison lies, with its figures."""
        return self._subfolder("reports", data_version)

    def recalls(self) -> Path:
        """The log of rows that people took back."""
        return self.root() / "recalls.jsonl"

    def record(self, asset: str, kind: type[R]) -> R | None:
        """The record that the unpartitioned `asset` stored last, or None."""
        path = self.tables() / f"{safe_name(asset)}.json"
        return read_record(kind, path) if path.is_file() else None

    def relative(self, path: Path) -> str:
        """`path` as it is written into records: relative to the folder, with forward slashes."""
        return path.absolute().relative_to(Path(self.folder).expanduser().absolute()).as_posix()

    def _subfolder(self, *names: str) -> Path:
        folder = self.root().joinpath(*(safe_name(name) for name in names))
        if not self.copied_databases:
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def can_name_file(name: str) -> bool:
    """Return whether a file of SYNTH_HOME may have this name."""
    return NAME.fullmatch(name) is not None


def safe_name(name: str) -> str:
    """`name` if it is safe as one path segment; ValueError otherwise."""
    if not can_name_file(name):
        raise ValueError(
            f"{name!r} cannot name a file: letters, digits, dot, dash and underscore, "
            "first a letter or digit, at most 128 characters"
        )
    return name


class AssetStorage(dg.ConfigurableIOManagerFactory):
    """Stores each asset under `tables/` of the home."""

    home: SynthHome

    def create_io_manager(self, context: dg.InitResourceContext) -> "AssetIOManager":
        """The manager of one step; sweeps what killed writers left."""
        tables = self.home.tables()
        sweep_temporaries(tables)
        return AssetIOManager(tables)


class AssetIOManager(dg.IOManager):
    """Parquet for frames, JSON for records; the downstream annotation says what is loaded."""

    def __init__(self, tables: Path) -> None:
        """Keep assets under `tables`, a folder of SYNTH_HOME."""
        self.tables = tables

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write a LazyFrame (streamed), a DataFrame or a record under its final name in one rename."""
        partition = context.asset_partition_key if context.has_asset_partitions else None
        path = self.path(context.asset_key, partition)
        if isinstance(obj, pl.LazyFrame | pl.DataFrame):
            path = path.with_name(f"{path.name}.parquet")
            write_atomically(path, _parquet_writer(obj))
            context.add_output_metadata(_table_metadata(path))
        elif is_dataclass(obj) and not isinstance(obj, type):
            text = to_json(obj)
            path = path.with_name(f"{path.name}.json")
            write_atomically(path, lambda temporary: _write_text(temporary, text))
        else:
            raise TypeError(
                f"{context.asset_key.to_user_string()} gave a {type(obj).__name__}: "
                "an asset is a polars frame or a record of synth_assets.schemas.records"
            )
        context.add_output_metadata({"path": path.relative_to(self.tables.parent).as_posix()})

    def load_input(self, context: dg.InputContext) -> object:
        """Read an asset as the annotation asks; `dict[str, T]` gets every partition that was made."""
        kind = context.dagster_type.typing_type
        key = context.asset_key
        if not context.has_asset_partitions:
            return self._load(key, None, kind)
        wanted = list(context.asset_partition_keys)
        if typing.get_origin(kind) is dict:
            return self._load_partitions(context, wanted, typing.get_args(kind)[1])
        if len(wanted) != 1:
            raise StorageError(
                f"{key.to_user_string()} has {len(wanted)} partitions: annotate the input as dict[str, pl.LazyFrame]"
            )
        return self._load(key, wanted[0], kind)

    def path(self, key: dg.AssetKey, partition: str | None) -> Path:
        """Where an asset lies, without its suffix; ValueError for names that leave the folder."""
        parts = [*key.path] if partition is None else [*key.path, partition]
        return self.tables.joinpath(*(safe_name(part) for part in parts))

    def _load_partitions(self, context: dg.InputContext, wanted: list[str], kind: object) -> dict[str, object]:
        key = context.asset_key
        made = [p for p in wanted if self._stored(key, p) is not None]
        if not made:
            raise StorageError(_never_made(key, None) + "; no partition of it exists yet")
        if skipped := sorted(p[:SHOWN_CHARACTERS] for p in set(wanted) - set(made)):
            told = ", ".join([*skipped[:SHOWN], *([f"{len(skipped) - SHOWN} more"] if len(skipped) > SHOWN else [])])
            context.log.warning(f"{key.to_user_string()}: {told} never materialised and left out")
        return {partition: self._load(key, partition, kind) for partition in made}

    def _load(self, key: dg.AssetKey, partition: str | None, kind: object) -> object:
        path = self._stored(key, partition)
        if path is None:
            raise StorageError(_never_made(key, partition))
        if path.suffix == ".json":
            if not is_dataclass(kind):
                raise TypeError(f"{key.to_user_string()} is a record: annotate the input with its class, not {kind}")
            return read_record(typing.cast("type[Any]", kind), path)
        if kind is pl.DataFrame:
            return read_table(path)
        if kind in (pl.LazyFrame, Any):
            return scan_table(path)
        raise TypeError(f"{key.to_user_string()} is a table: annotate the input as a polars frame, not {kind}")

    def _stored(self, key: dg.AssetKey, partition: str | None) -> Path | None:
        if partition is not None and not can_name_file(partition):
            return None  # the Dagster UI adds partitions of any name; none of these was ever stored
        path = self.path(key, partition)
        candidates = (path.with_name(f"{path.name}{suffix}") for suffix in (".parquet", ".json"))
        return next((p for p in candidates if p.is_file()), None)


def _never_made(key: dg.AssetKey, partition: str | None) -> str:
    name = key.to_user_string()
    chosen = f" --partition {partition}" if partition else ""
    shown = f"{name}[{partition}]" if partition else name
    return f"{shown} was never materialised: run `dg launch --assets {name}{chosen}`, or materialise it in the UI"


def _parquet_writer(frame: pl.LazyFrame | pl.DataFrame) -> Callable[[Path], None]:
    def write(temporary: Path) -> None:
        if isinstance(frame, pl.LazyFrame):
            write_row_groups(frame, temporary, ROW_GROUP_ROWS)
        else:
            frame.write_parquet(temporary, compression="zstd", row_group_size=ROW_GROUP_ROWS)

    return write


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _table_metadata(path: Path) -> dict[str, Any]:
    scan = pl.scan_parquet(path, glob=False)
    schema = scan.collect_schema()
    columns = [dg.TableColumn(name, str(kind), description=COLUMNS.get(name)) for name, kind in schema.items()]
    return {
        "dagster/row_count": scan.select(pl.len()).collect().item(),
        "dagster/column_schema": dg.TableSchema(columns),
        "bytes": path.stat().st_size,
    }
