"""`synth import`: files, folders, and published sets, for whose download small files of the same shapes stand."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from synth_assets.cli.imports import ImportArguments, allow_network, import_text
from synth_assets.cli.session import Session, open_session
from synth_assets.llm import model_files
from synth_assets.llm.model_files import ModelFilesError
from synth_assets.stages.generation.hub import HUB_SETS
from synth_assets.stages.generation.import_store import manifest_path, read_import, stored_imports
from synth_assets.stages.generation.imports import read_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASKED, ANSWERED = "Name a river.", "The Nile."


def message(number: str, parent: str | None, role: str, text: str, **more: object) -> dict[str, Any]:
    empty = {"rank": None, "deleted": False, "lang": "en", "message_tree_id": "a"}
    return {"message_id": number, "parent_id": parent, "role": role, "text": text} | empty | more


TREE = [
    message("a", None, "prompter", ASKED),
    message("b", "a", "assistant", "No.", rank=1),
    message("c", "a", "assistant", ANSWERED, rank=0),
    message("d", "c", "prompter", "And another?"),
    message("e", "d", "assistant", "The Amazon.", rank=None),
    message("f", "e", "prompter", "Nobody answers this."),
    message("g", "a", "assistant", "Deleted.", rank=-1, deleted=True),
    message("z", None, "prompter", "Nobody answered at all."),
]
TALK = {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWERED}]}
ALPACA = {"instruction": ASKED, "input": "", "output": ANSWERED}
PUBLISHED: dict[str, tuple[str, list[dict[str, Any]]]] = {  # file and rows in the shape of each set
    "alpaca": ("data/train-00000-of-00001.parquet", [{**ALPACA, "text": "Below is an instruction"}]),
    "alpaca-cleaned": ("alpaca_data_cleaned.json", [ALPACA]),
    "dolly": (
        "databricks-dolly-15k.jsonl",
        [{"instruction": ASKED, "context": "", "response": ANSWERED, "category": "open_qa"}],
    ),
    "oasst1": ("data/train-00000-of-00001.parquet", TREE),
    "wizardlm-evol": ("WizardLM_evol_instruct_V2_143k.json", [{"idx": "x", **TALK}]),
    "sharegpt": ("ShareGPT_V3_unfiltered_cleaned_split.json", [{"id": "x", **TALK}]),
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        lines = path.suffix == ".jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows), "utf-8")
    return path


@pytest.fixture
def take_in(own_home: Path) -> Callable[..., str]:
    def take(source: str, format: str | None = None, *columns: str) -> str:  # noqa: A002
        return import_text(Session(own_home, "cpu"), source, ImportArguments(format, columns))

    return take


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for each set, as a download would leave it; asked for by name, patterns and kind."""

    def fetch(name: str, revision: str | None, patterns: list[str], kind: str = "model") -> Path:
        [key] = [key for key, row in HUB_SETS.items() if row.repository == name]
        assert (revision, tuple(patterns), kind) == (None, HUB_SETS[key].files, "dataset")
        return tmp_path / key / COMMIT

    for key, (file, rows) in PUBLISHED.items():
        write(tmp_path / key / COMMIT / file, rows)
        write(tmp_path / key / COMMIT / "README.md", [])
    monkeypatch.setattr(model_files, "fetch", fetch)
    return tmp_path


@pytest.mark.parametrize("key", HUB_SETS)
def test_a_published_set_is_imported_with_its_origin(
    hub: Path, take_in: Callable[..., str], own_home: Path, key: str
) -> None:
    told = take_in(f"hub:{key}")
    row = HUB_SETS[key]
    assert f"{row.repository} at {COMMIT}, licence {row.licence}" in told
    assert "1 instruction kept" in told
    [file] = stored_imports(own_home / "imports")
    kept = read_import(file).instructions.collect().row(0, named=True)
    if key == "oasst1":
        assert [turn["content"] for turn in kept["history"]] == [ASKED, ANSWERED]
        assert (kept["instruction"], kept["response"]) == ("And another?", "The Amazon.")
        assert "rejected 1: no_answer (line 8)" in told
    else:
        assert (kept["instruction"], kept["response"], kept["history"]) == (ASKED, ANSWERED, [])
    origin = json.loads(manifest_path(own_home / "imports", file.name).read_text("utf-8"))["origin"]
    assert origin == {
        "repository": row.repository,
        "revision": COMMIT,
        "file": PUBLISHED[key][0],
        "licence": row.licence,
    }


def test_the_context_of_dolly_follows_the_instruction(hub: Path, take_in: Callable[..., str], own_home: Path) -> None:
    row = {"instruction": "Name it.", "context": "A river of Egypt.", "response": ANSWERED, "category": "closed_qa"}
    write(hub / "dolly" / COMMIT / "databricks-dolly-15k.jsonl", [row])
    take_in("hub:dolly")
    [file] = stored_imports(own_home / "imports")
    assert read_import(file).instructions.collect()["instruction"].to_list() == ["Name it.\n\nA river of Egypt."]


def test_without_a_network_the_remedy_is_named(take_in: Callable[..., str]) -> None:  # fault 30
    with pytest.raises(ModelFilesError, match=r"unreachable \(HF_HUB_OFFLINE is set\): connect, or download https://"):
        take_in("hub:alpaca")


@pytest.mark.parametrize(
    ("own", "source", "offline"),
    [(None, "hub:alpaca", "0"), (None, "a.jsonl", "1"), ("1", "hub:alpaca", "1"), ("0", "a.jsonl", "0")],
)
def test_the_cpu_tier_may_fetch_a_set_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, own: str | None, source: str, offline: str
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    if own:
        monkeypatch.setenv("HF_HUB_OFFLINE", own)
    allow_network(source)
    open_session("cpu")
    assert os.environ["HF_HUB_OFFLINE"] == offline


def test_an_unknown_set_names_those_there_are(take_in: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"no set hub:lpaca; there are hub:alpaca, hub:alpaca-cleaned, hub:dolly"):
        take_in("hub:lpaca")


def test_a_moved_set_is_an_error_with_the_remedy(hub: Path, take_in: Callable[..., str]) -> None:
    (hub / "dolly" / COMMIT / "databricks-dolly-15k.jsonl").unlink()
    with pytest.raises(ValueError, match=r"no longer has \*\.jsonl; download it and import the file"):
        take_in("hub:dolly")


def test_a_folder_is_imported_file_by_file(tmp_path: Path, take_in: Callable[..., str], own_home: Path) -> None:
    folder = tmp_path / "mine"
    write(folder / "a.jsonl", [ALPACA, {"instruction": "", "output": "x"}])
    write(folder / "more" / "b.parquet", [ALPACA])
    (folder / "torn.json").write_text("[1, 2", "utf-8")
    (folder / "notes.txt").write_text("no data", "utf-8")
    told = take_in(str(folder))
    assert "a.jsonl: 1 instruction kept" in told
    assert "rejected 1: empty_instruction (line 2)" in told
    assert "torn.json: not imported" in told
    assert [path.name for path in stored_imports(own_home / "imports")] == ["a.jsonl", "more-b.parquet"]


def test_a_folder_without_a_usable_file_is_refused(tmp_path: Path, take_in: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must contain a file that ends in \.jsonl"):
        take_in(str(tmp_path / "empty"))
    (tmp_path / "empty" / "torn.json").write_text("[1, 2", "utf-8")
    with pytest.raises(ValueError, match=r"no file of .* could be imported; torn\.json"):
        take_in(str(tmp_path / "empty"))


def test_anything_else_is_an_error(take_in: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"must be a file, a folder or hub:<name>, got .*nowhere"):
        take_in("nowhere")


def test_columns_are_named_in_one_option_or_several(tmp_path: Path, take_in: Callable[..., str]) -> None:
    file = write(tmp_path / "own.jsonl", [{"frage": ASKED, "antwort": ANSWERED}])
    assert "1 instruction kept" in take_in(str(file), None, "instruction=frage,response=antwort")
    assert "nothing changed" in take_in(str(file), None, "instruction=frage", "response=antwort")
    with pytest.raises(ValueError, match="expects ours=theirs"):
        take_in(str(file), None, "frage")


def test_the_report_is_stored_with_the_import(tmp_path: Path, take_in: Callable[..., str], own_home: Path) -> None:
    file = write(tmp_path / "own.jsonl", [ALPACA, {**ALPACA, "input": "<noinput>"}, {"instruction": "", "output": "x"}])
    told = take_in(str(file))
    kept = json.loads(manifest_path(own_home / "imports", "own.jsonl").read_text("utf-8"))["report"]
    assert (kept["kept"], kept["rejected"]) == ({"instructions": 2}, {"empty_instruction": 1})
    assert kept["repaired"] == {"placeholder_input": 1}
    assert kept["lines"] == {"empty_instruction": [3]}
    assert str(manifest_path(own_home / "imports", "NAME")) in told


def test_a_tree_of_ones_own_is_found_by_looking(tmp_path: Path) -> None:
    read = read_file(write(tmp_path / "tree.jsonl", [*TREE, {"message_id": "x"}]))
    assert (list(read.report.formats), read.report.rows) == (["tree"], 1)
    assert read.report.lines == {"no_answer": [8], "not_a_message": [9]}


def test_a_tree_that_bites_its_own_tail_ends(tmp_path: Path) -> None:
    loop = [message("a", None, "prompter", ASKED), message("b", "a", "assistant", ANSWERED)]
    twice = [message("a", "b", "prompter", "Again?")]
    assert read_file(write(tmp_path / "tree.jsonl", [*loop, *twice])).report.rows == 1
