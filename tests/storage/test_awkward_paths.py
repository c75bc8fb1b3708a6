"""Paths whose characters mean something to libraries: patterns, queries, escapes."""

import json
import os
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.deployment import set_up_process
from resources.storage import AssetStorage, SynthHome
from synth_assets.stages.generation.import_store import ImportRequest, import_file, read_import, stored_imports
from synth_assets.storage.blocks import Block, compute_blocks, read_blocks
from synth_assets.storage.lineage import fates_of, find_rows
from synth_assets.storage.plain_path import plain_path

pytestmark = pytest.mark.usefixtures("own_links")

NAMES = ["a [b]*c?d", "e%20f#g;h 100% Über-漢", "[!x]", "**"]


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.mkdir()
    return path


def test_tables_are_stored_and_read(folder: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    @dg.asset
    def table() -> pl.LazyFrame:
        return pl.LazyFrame({"a": [1, 2, 3]})

    @dg.asset
    def reader(table: pl.LazyFrame) -> pl.DataFrame:
        seen.append(table.collect().height)
        return table.collect()

    resources = {"io_manager": AssetStorage(home=SynthHome(folder=str(folder)))}
    assert dg.materialize([table, reader], resources=resources).success
    assert seen == [3]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_blocks_and_manifests_are_stored_and_read(folder: Path) -> None:
    home = SynthHome(folder=str(folder))
    blocks = [Block("k", 2, None)]
    for _ in range(2):
        paths = compute_blocks(
            blocks, lambda _: pl.DataFrame({"a": [1, 2]}), home.shards("x"), what="rows", progress=lambda _: None
        )
    assert read_blocks(paths, pl.Schema({"a": pl.Int64}))["a"].to_list() == [1, 2]
    home.leave_row_manifest("sft_dataset", "v", pl.DataFrame({"row_id": ["aa11"], "fate": ["kept"]}))
    assert find_rows(home.manifests(), "aa") == ["aa11"]
    assert fates_of(home.manifests(), ["aa11"])["fate"].to_list() == ["kept"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_files_are_imported_from_and_to(folder: Path, suffix: str) -> None:
    rows = [{"instruction": f"Add {n} and 2.", "output": str(n + 2)} for n in range(3)]
    path, imports = folder / f"rows{suffix}", SynthHome(folder=str(folder)).imports()
    writers = {
        ".jsonl": lambda: path.write_text("".join(json.dumps(row) + "\n" for row in rows)),
        ".json": lambda: path.write_text(json.dumps(rows)),
        ".csv": lambda: pl.DataFrame(rows).write_csv(path),
        ".parquet": lambda: pl.DataFrame(rows).write_parquet(path),
    }
    writers[suffix]()
    report = import_file(ImportRequest(path), imports)
    assert report.kept == {"instructions": 3}  # pyright: ignore[reportAttributeAccessIssue]
    (stored,) = stored_imports(imports)
    assert read_import(stored, folder).instructions.collect().height == 3


def test_dagster_home_is_a_plain_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "dagster"))
    set_up_process(folder, "cpu")
    given = Path(os.environ["DAGSTER_HOME"])
    given.mkdir()
    assert (folder / "dagster").is_dir()
    assert not set("?*[]%") & set(str(given))


def test_a_link_follows_its_folder_and_plain_paths_need_none(folder: Path, tmp_path: Path) -> None:
    link = plain_path(folder)
    assert link == plain_path(folder)
    assert link.resolve() == folder
    assert link.parent.stat().st_mode & 0o777 == 0o700
    link.unlink()
    link.symlink_to(tmp_path / "wrong")
    assert plain_path(folder).resolve() == folder
    assert plain_path(tmp_path / "a b#c") == tmp_path / "a b#c"
