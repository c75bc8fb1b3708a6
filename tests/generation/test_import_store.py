"""Stored imports: named, changed as a whole, and never replaced without being asked."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from synth_assets.record_files.records import RecordFileError
from synth_assets.stages.generation.import_report import ImportReport, TooLong
from synth_assets.stages.generation.import_store import (
    DATA,
    ImportRequest,
    StoredImport,
    default_name,
    find_import,
    import_file,
    manifest_path,
    read_import,
    stored_imports,
)
from synth_assets.stages.generation.imports import ImportOptions
from tests.support.fakes import jsonl

ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
OWN = ImportOptions(columns={"instruction": "frage", "response": "antwort"})


def names(folder: Path) -> list[str]:
    return [stored.name for stored in stored_imports(folder)]


def responses(folder: Path, name: str) -> list[str]:
    stored = find_import(folder, name)
    assert stored is not None
    return read_import(stored).instructions.collect()["response"].to_list()


def test_an_import_is_copied_with_its_options_and_report(tmp_path: Path) -> None:
    source, folder = jsonl(tmp_path / "mine.jsonl", {"frage": "a", "antwort": "b"}), tmp_path / "imports"
    report = import_file(ImportRequest(source, OWN), folder)
    assert isinstance(report, ImportReport)
    assert report.rows == 1
    source.unlink()
    (stored,) = stored_imports(folder)
    read = read_import(stored)
    assert (stored.name, read.instructions.collect()["source"].to_list()) == ("mine.jsonl", ["mine.jsonl"])
    assert stored.report == json.loads(json.dumps(report.facts()))
    assert read.report.kept == report.kept


def test_two_files_of_the_same_name_never_replace_one_another(tmp_path: Path) -> None:
    folder = tmp_path / "imports"
    first = jsonl(tmp_path / "x" / "train.jsonl", ALPACA)
    second = jsonl(tmp_path / "y" / "train.jsonl", ALPACA | {"output": "4"})
    import_file(ImportRequest(first), folder)
    with pytest.raises(RecordFileError, match=r"an import named train\.jsonl already.*--replace .*--name NAME"):
        import_file(ImportRequest(second), folder)
    assert responses(folder, "train.jsonl") == ["3"]
    import_file(ImportRequest(second, name="y train"), folder)
    assert names(folder) == ["train.jsonl", "y train"]
    assert responses(folder, "y train") == ["4"]
    import_file(ImportRequest(second, replace=True), folder)
    assert responses(folder, "train.jsonl") == ["4"]
    assert len(list((folder / DATA).iterdir())) == 1, "both imports have the same content"


def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    source, folder = jsonl(tmp_path / "a.jsonl", ALPACA), tmp_path / "imports"
    import_file(ImportRequest(source), folder)
    before = manifest_path(folder, "a.jsonl").stat().st_mtime_ns
    again = import_file(ImportRequest(source), folder)
    assert isinstance(again, StoredImport)
    assert manifest_path(folder, "a.jsonl").stat().st_mtime_ns == before
    with pytest.raises(RecordFileError, match="other content or options"):
        import_file(ImportRequest(source, ImportOptions(columns={"input": ""})), folder)


def test_replacing_changes_rows_options_and_report_together(tmp_path: Path) -> None:
    folder = tmp_path / "imports"
    import_file(ImportRequest(jsonl(tmp_path / "a.jsonl", {"frage": "a", "antwort": "b"}), OWN), folder)
    import_file(
        ImportRequest(jsonl(tmp_path / "a.jsonl", ALPACA, {"instruction": "", "output": "x"}), replace=True), folder
    )
    (stored,) = stored_imports(folder)
    assert (stored.options, responses(folder, "a.jsonl")) == (ImportOptions(), ["3"])
    assert stored.report is not None
    assert stored.report["rejected"] == {"empty_instruction": 1}
    assert len(list((folder / DATA).iterdir())) == 1


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 256 kB; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_the_import_before_whole(tmp_path: Path, full_disk: Path) -> None:  # fault 5
    folder = full_disk / "imports"
    import_file(ImportRequest(jsonl(tmp_path / "a.jsonl", {"frage": "a", "antwort": "b"}), OWN), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    large = jsonl(tmp_path / "a.jsonl", *(ALPACA | {"output": os.urandom(500).hex()} for _ in range(400)))
    with pytest.raises(OSError, match="No space left"):
        import_file(ImportRequest(large, replace=True), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert responses(folder, "a.jsonl") == ["b"]
    with pytest.raises(OSError, match="No space left"):
        import_file(ImportRequest(large, name="new"), folder)
    assert names(folder) == ["a.jsonl"]


def test_a_disk_that_fills_up_at_the_manifest_leaves_the_import_before_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "imports"
    import_file(ImportRequest(jsonl(tmp_path / "a.jsonl", {"frage": "a", "antwort": "b"}), OWN), folder)
    before = sorted(folder.rglob("*"))

    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        import_file(ImportRequest(jsonl(tmp_path / "a.jsonl", ALPACA), replace=True), folder)
    assert sorted(folder.rglob("*")) == before
    assert responses(folder, "a.jsonl") == ["b"]


def test_a_file_that_changes_while_it_is_imported_is_refused(tmp_path: Path) -> None:
    source, folder = jsonl(tmp_path / "a.jsonl", ALPACA), tmp_path / "imports"

    def count(rows: pl.DataFrame) -> TooLong | None:
        jsonl(source, ALPACA, ALPACA)
        return None

    with pytest.raises(RecordFileError, match="changed during the import"):
        import_file(ImportRequest(source), folder, count)
    assert names(folder) == []


def test_rows_too_long_for_the_base_are_in_the_report(tmp_path: Path) -> None:
    found = TooLong("small base", 256, rows=1, measured=2)
    report = import_file(
        ImportRequest(jsonl(tmp_path / "a.jsonl", ALPACA, ALPACA)), tmp_path / "imports", lambda rows: found
    )
    assert isinstance(report, ImportReport)
    (stored,) = stored_imports(tmp_path / "imports")
    assert stored.report is not None
    assert stored.report["too_long_for_base"] == {"base": "small base", "context_tokens": 256, "rows": 1, "measured": 2}


def test_a_file_copied_into_the_folder_is_an_import(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", ALPACA)
    for other in (".hidden.jsonl", "notes.txt", "b.jsonl.options.json"):
        (tmp_path / other).write_text("{}")
    assert names(tmp_path) == ["a.jsonl"]
    assert responses(tmp_path, "a.jsonl") == ["3"]


def test_an_import_of_an_earlier_version_is_read_and_can_be_replaced(tmp_path: Path) -> None:
    jsonl(tmp_path / "imports" / "a.jsonl", {"frage": "a", "antwort": "b"})
    options = {"format": None, "columns": OWN.columns, "origin": None, "report": {"kept": 1}}
    (tmp_path / "imports" / "a.jsonl.options.json").write_text(json.dumps(options))
    assert responses(tmp_path / "imports", "a.jsonl") == ["b"]
    source = jsonl(tmp_path / "a.jsonl", ALPACA)
    with pytest.raises(RecordFileError, match="--replace"):
        import_file(ImportRequest(source), tmp_path / "imports")
    import_file(ImportRequest(source, replace=True), tmp_path / "imports")
    assert responses(tmp_path / "imports", "a.jsonl") == ["3"]
    assert not (tmp_path / "imports" / "a.jsonl").exists()
    assert not (tmp_path / "imports" / "a.jsonl.options.json").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"name": "a.jsonl"}', "is damaged"),
        ("elsewhere", "names ../../secret.jsonl as a.jsonl"),
        ("gone", "is missing .*--name 'a.jsonl' --replace"),
    ],
)
def test_a_damaged_import_is_named_with_the_remedy(tmp_path: Path, damage: str, message: str) -> None:
    folder = tmp_path / "imports"
    import_file(ImportRequest(jsonl(tmp_path / "a.jsonl", ALPACA)), folder)
    manifest = manifest_path(folder, "a.jsonl")
    if damage == "gone":
        next((folder / DATA).iterdir()).unlink()
    elif damage == "elsewhere":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"file": "../../secret.jsonl"}))
    else:
        manifest.write_text(damage)
    with pytest.raises(RecordFileError, match=message):
        responses(folder, "a.jsonl")


def test_a_file_without_a_usable_row_is_not_imported(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", {"instruction": "", "output": "x"}, {"instruction": "x", "output": ""})
    with pytest.raises(RecordFileError, match=r"no usable row; rejected: 1 empty_instruction, 1 empty_response"):
        import_file(ImportRequest(source), tmp_path / "imports")
    assert not (tmp_path / "imports").exists()


def test_a_file_whose_rows_are_all_labelled_bad_names_the_way_out(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "kto.jsonl", {"prompt": "a", "completion": "b", "label": False})
    with pytest.raises(RecordFileError, match=r"rejected: 1 labelled_bad\..*--column label="):
        import_file(ImportRequest(source), tmp_path / "imports")


@pytest.mark.parametrize("name", ["../a.jsonl", "/etc/a.jsonl", "a/b.jsonl", ".a.jsonl", "", "a\0.jsonl", "a\n.jsonl"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:  # fault 29
    source = jsonl(tmp_path / "a.jsonl", ALPACA)
    with pytest.raises(RecordFileError, match="cannot name an import"):
        import_file(ImportRequest(source, name=name), tmp_path / "imports")
    assert not (tmp_path / "imports").exists()


@pytest.mark.parametrize("suffix", [".options.json", ".import.json"])
def test_manifests_cannot_be_overwritten_by_an_import(tmp_path: Path, suffix: str) -> None:
    source = jsonl(tmp_path / "a.jsonl", ALPACA)
    with pytest.raises(RecordFileError, match="cannot name an import"):
        import_file(ImportRequest(source, name=f"x.jsonl{suffix}"), tmp_path / "imports")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a b.jsonl", "a b.jsonl"),
        ("Fragen für später.jsonl", "Fragen-fur-spater.jsonl"),
        (".hidden.jsonl", "hidden.jsonl"),
        ("\x1b[31m.csv", "31m.csv"),
        ("質問.jsonl", "jsonl"),
        ("x" * 200 + ".jsonl.gz", "x" * 111 + ".jsonl.gz"),
        ("rows.options.json", "rows"),
        ("-x.csv", "x.csv"),
    ],
)
def test_a_name_is_made_from_the_name_of_the_file(file: str, name: str) -> None:
    assert default_name(file) == name


def test_a_compressed_import_is_kept_compressed(tmp_path: Path) -> None:
    import gzip

    source = tmp_path / "a.jsonl.gz"
    source.write_bytes(gzip.compress(json.dumps(ALPACA).encode()))
    import_file(ImportRequest(source), tmp_path / "imports")
    assert responses(tmp_path / "imports", "a.jsonl.gz") == ["3"]
    (copy,) = (tmp_path / "imports" / DATA).iterdir()
    assert copy.suffixes == [".jsonl", ".gz"]
