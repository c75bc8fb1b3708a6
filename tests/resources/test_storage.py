"""Storage of assets: round trips, atomic writes, clear refusals."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import dagster as dg
import polars as pl
import pytest

from resources.storage import AssetStorage, SynthHome
from synth_assets.schemas.records import ModelRecord
from synth_assets.storage.errors import StorageError

ROOT = Path(__file__).resolve().parents[2]
BATCHES = dg.DynamicPartitionsDefinition(name="batches")
RECORD = ModelRecord("base", "folder", "r1", "llama", 256)


@dg.asset
def table() -> dg.MaterializeResult:
    return dg.MaterializeResult(value=pl.DataFrame({"a": [1, 2, 3]}), metadata={"dagster/row_count": 3})


@dg.asset
def lazy(table: pl.LazyFrame) -> pl.LazyFrame:
    return table.filter(pl.col("a") > 1)


@dg.asset
def record() -> ModelRecord:
    return RECORD


@dg.asset(partitions_def=BATCHES)
def batched(context: dg.AssetExecutionContext) -> pl.LazyFrame:
    return pl.LazyFrame({"batch": [context.partition_key]})


def resources(home: Path) -> dict[str, object]:
    return {"io_manager": AssetStorage(home=SynthHome(folder=str(home)))}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_frames_and_records_load_as_annotated(tmp_path: Path) -> None:
    seen: dict[str, object] = {}

    @dg.asset
    def reader(table: pl.DataFrame, lazy: pl.LazyFrame, record: ModelRecord) -> pl.DataFrame:
        seen.update(table=table.to_dict(as_series=False), lazy=lazy.collect()["a"].to_list(), record=record)
        return table

    result = dg.materialize([table, lazy, record, reader], resources=resources(tmp_path))
    assert result.success
    assert seen == {"table": {"a": [1, 2, 3]}, "lazy": [2, 3], "record": RECORD}
    metadata = result.asset_materializations_for_node("lazy")[0].metadata
    assert metadata["dagster/row_count"].value == 2
    assert metadata["path"].value == "tables/lazy.parquet"
    assert metadata["dagster/column_schema"].value == dg.TableSchema([dg.TableColumn("a", "Int64")])


def test_materialised_partitions_are_loaded(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    seen: list[str] = []

    @dg.asset
    def reader(batched: dict[str, pl.LazyFrame]) -> pl.DataFrame:
        merged = pl.concat(batched.values()).collect()
        seen.extend(f"{key}:{value}" for key, value in zip(batched, merged["batch"], strict=True))
        return merged

    instance.add_dynamic_partitions("batches", ["2026-W47", "2026-W48", "2026-W49"])
    for key in ("2026-W47", "2026-W49"):
        dg.materialize([batched], partition_key=key, instance=instance, resources=resources(tmp_path))
    dg.materialize([batched, reader], selection=[reader], instance=instance, resources=resources(tmp_path))
    assert seen == ["2026-W47:2026-W47", "2026-W49:2026-W49"]


def test_a_frame_may_read_its_own_previous_version(tmp_path: Path) -> None:
    path = tmp_path / "tables" / "growing.parquet"

    @dg.asset
    def growing() -> pl.LazyFrame:
        new = pl.LazyFrame({"a": [1]})
        return pl.concat([pl.scan_parquet(path), new]) if path.exists() else new

    for rows in (1, 2, 3):
        dg.materialize([growing], resources=resources(tmp_path))
        assert pl.read_parquet(path).height == rows


@pytest.mark.parametrize("key", ["../outside", "..", ".hidden", "a/b", "a\x00b", "/etc/passwd", "x" * 200])
def test_partition_names_stay_in_the_folder(tmp_path: Path, instance: dg.DagsterInstance, key: str) -> None:  # fault 29
    instance.add_dynamic_partitions("batches", [key])
    with pytest.raises(ValueError, match="cannot name a file"):
        dg.materialize([batched], partition_key=key, instance=instance, resources=resources(tmp_path / "home"))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_missing_table_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="table was never materialised: run"):
        dg.materialize([table, lazy], selection=[lazy], resources=resources(tmp_path))


def test_an_optional_input_is_none_until_it_is_materialised(tmp_path: Path) -> None:
    seen: list[ModelRecord | None] = []

    @dg.asset(ins={"record": dg.AssetIn(dagster_type=Optional[ModelRecord])})  # noqa: UP045 - Dagster needs this form
    def reader(record: ModelRecord | None) -> None:
        seen.append(record)

    dg.materialize([record, reader], selection=[reader], resources=resources(tmp_path))
    dg.materialize([record, reader], resources=resources(tmp_path))
    assert seen == [None, RECORD]


def test_wrong_types_raise(tmp_path: Path) -> None:
    @dg.asset
    def number() -> int:
        return 3

    @dg.asset
    def wants_table(record: pl.LazyFrame) -> None: ...

    @dg.asset
    def wants_record(table: ModelRecord) -> None: ...

    with pytest.raises(TypeError, match="number must return a polars frame or a record"):
        dg.materialize([number], resources=resources(tmp_path))
    with pytest.raises(TypeError, match="record is a record"):
        dg.materialize([record, wants_table], resources=resources(tmp_path))
    with pytest.raises(TypeError, match="table is a table"):
        dg.materialize([table, wants_record], resources=resources(tmp_path))


def test_row_manifest_is_kept_by_version(tmp_path: Path) -> None:
    home = SynthHome(folder=str(tmp_path))
    home.leave_row_manifest("sft_dataset", "abc", pl.DataFrame({"row_id": ["1"], "fate": ["kept"]}))
    assert pl.read_parquet(tmp_path / "manifests/sft_dataset/abc.parquet").rows() == [("1", "kept")]
    with pytest.raises(ValueError, match="fate"):
        home.leave_row_manifest("sft_dataset", "abc", pl.DataFrame({"row_id": ["1"]}))


def test_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:  # fault 4
    dg.materialize([table], resources=resources(tmp_path))
    leftover = tmp_path / "tables" / ".table.parquet.1.2.tmp"
    leftover.write_bytes(b"half")
    os.utime(leftover, (0, 0))
    dg.materialize([table, lazy], selection=[lazy], resources=resources(tmp_path))
    assert not leftover.exists()
    assert pl.read_parquet(tmp_path / "tables/table.parquet").height == 3


KILLED_BEFORE_RENAME = """
import os, signal, sys
from pathlib import Path
import dagster as dg, polars as pl
from resources.storage import AssetStorage, SynthHome

@dg.asset
def table():
    return dg.MaterializeResult(value=pl.DataFrame({"a": [9, 9]}))

Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
dg.materialize([table], resources={"io_manager": AssetStorage(home=SynthHome(folder=sys.argv[1]))})
"""


def test_writer_killed_before_the_rename_keeps_the_previous_version(tmp_path: Path) -> None:  # fault 4
    dg.materialize([table], resources=resources(tmp_path))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_RENAME, tmp_path], capture_output=True, check=False, cwd=ROOT
    )
    assert killed.returncode == -signal.SIGKILL
    assert [p.suffix for p in sorted((tmp_path / "tables").iterdir())] == [".tmp", ".parquet"]
    assert pl.read_parquet(tmp_path / "tables/table.parquet")["a"].to_list() == [1, 2, 3]


@pytest.fixture
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A tmpfs with the given mount options; skipped where this user may not mount."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("mounted", ["size=1m"], indirect=True)
@pytest.mark.parametrize("lazily", [True, False])
def test_no_space_leaves_nothing_and_a_rerun_works(mounted: Path, lazily: bool) -> None:  # fault 5
    noise = pl.DataFrame({"a": [os.urandom(1_000) for _ in range(4_000)]})

    @dg.asset
    def large() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=noise.lazy() if lazily else noise)

    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(OSError, match=r"No space left.*large\.parquet"):
            dg.materialize([large], resources=resources(mounted), instance=instance)
        assert instance.get_latest_materialization_event(large.key) is None
        assert [p for p in mounted.rglob("*") if p.is_file()] == []
        subprocess.run(["mount", "-o", "remount,size=64m", mounted], check=True)
        assert dg.materialize([large], resources=resources(mounted), instance=instance).success


@pytest.mark.parametrize("mounted", ["ro"], indirect=True)
def test_read_only_home_fails_before_the_work(mounted: Path) -> None:  # fault 6
    worked: list[bool] = []

    @dg.asset
    def costly() -> pl.DataFrame:
        worked.append(True)
        return pl.DataFrame({"a": [1]})

    with pytest.raises(dg.DagsterResourceFunctionError) as caught:
        dg.materialize([costly], resources=resources(mounted))
    assert f"SYNTH_HOME {mounted} cannot be written" in str(caught.value.__cause__)
    assert not worked
