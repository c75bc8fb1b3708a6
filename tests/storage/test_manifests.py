from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from synth_assets.storage.manifests import (
    MANIFEST,
    ManifestError,
    content_hash,
    file_sha256,
    folder_hash,
    read_manifest,
    write_manifest,
)

TABLE = pl.DataFrame({"text": ["a", "b", None], "number": [1.0, 2.5, None], "many": [["x"], [], None]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights").write_bytes(b"\1\2\3")
    (tmp_path / "inner" / "config").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        TABLE.with_columns(text=pl.Series(["a", "B", None])),
        TABLE.with_columns(text=pl.Series(["a", "b", ""])),
        TABLE.with_columns(text=pl.Series(["a", "b", "null"])),
        TABLE.with_columns(number=pl.Series([1.0, 2.5, float("nan")])),
        TABLE.with_columns(number=pl.Series([1.0, 2.5, float("inf")])),
        TABLE.with_columns(number=pl.Series([1.0, 2.5000000000000004, None])),
        TABLE.with_columns(pl.col("number").cast(pl.Float32)),
        TABLE.rename({"text": "Text"}),
        TABLE.select("number", "text", "many"),
        TABLE.reverse(),
        TABLE.head(2),
    ],
)
def test_any_change_changes_the_content_hash(changed: pl.DataFrame) -> None:
    assert content_hash(changed) != content_hash(TABLE)


def test_nan_infinity_and_null_are_distinct() -> None:
    hashes = {
        content_hash(pl.DataFrame({"x": [value]}, {"x": pl.Float64})) for value in (float("nan"), float("inf"), None)
    }
    assert len(hashes) == 3


def test_cells_do_not_run_into_each_other() -> None:
    assert content_hash(pl.DataFrame({"x": ["a\n", "b"]})) != content_hash(pl.DataFrame({"x": ["a", "\nb"]}))


def test_content_hash_does_not_depend_on_storage(tmp_path: Path) -> None:
    table = pl.concat([TABLE] * 5_000)
    table.write_parquet(tmp_path / "a.parquet", compression="zstd")
    table.write_parquet(tmp_path / "b.parquet", compression="snappy", row_group_size=7_777)
    found = {content_hash(pl.scan_parquet(tmp_path / name)) for name in ("a.parquet", "b.parquet")}
    pieces = pl.concat([table[:10], table[10:]], rechunk=False)
    assert found | {content_hash(table.lazy()), content_hash(pieces)} == {content_hash(table)}


def test_empty_tables_of_different_columns_differ() -> None:
    assert content_hash(pl.DataFrame(schema={"a": pl.String})) != content_hash(pl.DataFrame(schema={"a": pl.Int64}))


def test_manifest_round_trip(folder: Path) -> None:
    digest = write_manifest(folder, {"method": "lora", "steps": 7})
    assert digest == file_sha256(folder / MANIFEST)
    assert read_manifest(folder) == {"method": "lora", "steps": 7}


def test_folder_without_manifest_is_incomplete(folder: Path) -> None:
    with pytest.raises(ManifestError, match="it is incomplete"):
        read_manifest(folder)


def _add(folder: Path) -> None:
    (folder / "inner" / "extra").touch()


def _remove(folder: Path) -> None:
    (folder / "inner" / "config").unlink()


def _change(folder: Path) -> None:
    (folder / "weights").write_bytes(b"\1\2\2")


@pytest.mark.parametrize(("damage", "name"), [(_add, "inner/extra"), (_remove, "inner/config"), (_change, "weights")])
def test_a_changed_folder_names_the_file(folder: Path, damage: Callable[[Path], None], name: str) -> None:
    write_manifest(folder, {})
    damage(folder)
    with pytest.raises(ManifestError, match=f"{name} does not match"):
        read_manifest(folder)


@pytest.mark.parametrize("content", ["", "[]", '{"facts": {}}', '{"facts": {}, "files"'])
def test_truncated_manifest_raises(folder: Path, content: str) -> None:  # fault 3
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(folder)


def test_folder_hash_covers_names_and_bytes_without_manifest(folder: Path) -> None:
    before = folder_hash(folder)
    write_manifest(folder, {})
    assert folder_hash(folder) == before
    (folder / "weights").rename(folder / "weight")
    assert folder_hash(folder) != before
