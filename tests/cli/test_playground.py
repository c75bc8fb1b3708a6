"""The playground: answers, votes, and how a vote becomes a row of `imported_preferences`."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from resources.storage import SynthHome
from synth_assets.cli import playground as playground_module
from synth_assets.cli.home_apps import HomeApps
from synth_assets.cli.playground import AskedTurns, Playground, model_choices
from synth_assets.cli.playground_page import PlaygroundPage
from synth_assets.cli.rows import row_story
from synth_assets.cli.session import Session, open_session
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.registry.retry import TrackingError
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import to_json
from synth_assets.stages.generation.import_store import ImportRequest, find_import, import_file, read_import
from tests.support.fakes import Echo
from tests.support.registry import MemoryRegistry

USER = {"role": "user", "content": "Name a bird."}
SYSTEM = {"role": "system", "content": "Be brief."}
SETTINGS = {"temperature": 0.7, "max_new_tokens": 16, "seed": 3}


class Parrot(Echo):
    """A generator that answers with the number of the call and the seed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Sequence[Message]] = []

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        self.asked.append(messages)
        return [len(self.asked)]

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        return [Completion(f"Bird {prompts[0][0]} of {seeds[0]}. ", "stop", 1, sampling.max_tokens)]


@pytest.fixture
def session(own_home: Path) -> Session:
    home = SynthHome(folder=str(own_home))
    (home.tables() / "base_model.json").write_text(to_json(ModelRecord("base", "folder", "rev1", "llama", 4096)))
    return open_session("cpu")


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def client(session: Session, parrot: Parrot) -> Iterator[TestClient]:
    playground = Playground(session, lambda _base, _adapter: parrot)
    with TestClient(HomeApps(Starlette(), PlaygroundPage(lambda: playground).routes())) as client:
        yield client


def ask(client: TestClient, *turns: dict[str, str], **changes: object) -> dict[str, Any]:
    body = {"model": "base", "turns": list(turns), **SETTINGS, **changes}
    response = client.post("/home/playground/answers", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def vote(client: TestClient, chosen: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    body = {"chosen": chosen["id"], "others": [each["id"] for each in others], "by": "ada"}
    return client.post("/home/playground/votes", json=body).json()


def imported(session: Session) -> pl.DataFrame:
    stored = find_import(session.storage.imports(), "playground")
    assert stored is not None
    with TemporaryDirectory() as scratch:
        return read_import(stored, Path(scratch)).preferences.collect()


class CountingRegistry(MemoryRegistry):
    """A registry that notes what is read for all versions and for one."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def versions(self) -> dict[str, dict[str, str]]:
        self.reads.append("versions")
        return super().versions()

    def version_tags(self, version: str) -> dict[str, str]:
        self.reads.append(version)
        return super().version_tags(version)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CountingRegistry:
    registry = CountingRegistry()
    registry.aliases["champion"] = "2"
    registry.tags["1"]["tainted"] = "1 recalled row"
    registry.tags["by hand"] = {}
    monkeypatch.setattr(Session, "tracker", registry)
    return registry


def test_all_versions_are_read_at_once(session: Session, registry: CountingRegistry) -> None:
    assert [(choice.key, choice.title) for choice in model_choices(session)] == [
        ("base", "base model"),
        ("champion", "champion: adapter_2 version 2"),
        ("3", "adapter_3 version 3"),
        ("2", "adapter_2 version 2"),
        ("1", "adapter_1 version 1, tainted"),
    ]
    assert sorted(registry.reads) == ["2", "versions"]


def test_an_answer_of_the_base_reads_no_version(session: Session, registry: CountingRegistry, parrot: Parrot) -> None:
    Playground(session, lambda _base, _adapter: parrot).ask("base", AskedTurns((USER,), 0.0, 4, 0))
    assert registry.reads == []


def test_the_page_offers_the_models(client: TestClient) -> None:
    page = client.get("/home/playground").text
    assert '<option value="base" selected>base model</option>' in page
    assert '<option value="champion" selected>champion: base model</option>' in page


def test_a_page_that_cannot_be_made_says_why(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_session: Session) -> None:
        raise TrackingError("MLflow at http://127.0.0.1:1 failed 5 times")

    monkeypatch.setattr(Session, "tracker", property(fail))
    response = client.get("/home/playground")
    assert (response.status_code, response.text) == (400, "MLflow at http://127.0.0.1:1 failed 5 times")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_an_answer_names_its_model(client: TestClient, parrot: Parrot) -> None:
    answer = ask(client, SYSTEM, USER)
    assert (answer["text"], answer["title"], answer["revision"]) == ("Bird 1 of 3. ", "base model", "rev1")
    assert (answer["finish_reason"], answer["tokens"]) == ("stop", 16)
    assert [turn["role"] for turn in parrot.asked[0]] == ["system", "user"]


def test_a_vote_becomes_an_imported_pair_with_its_lineage(client: TestClient, session: Session) -> None:
    first, second, third = (ask(client, SYSTEM, USER) for _ in range(3))
    (row_id, _) = vote(client, second, first, third)["rows"]
    rows = imported(session)
    assert rows.select("source", "instruction", "chosen", "rejected").rows() == [
        ("playground", "Name a bird.", "Bird 2 of 3.", "Bird 1 of 3."),
        ("playground", "Name a bird.", "Bird 2 of 3.", "Bird 3 of 3."),
    ]
    assert rows["history"][0].to_list() == [SYSTEM]
    assert rows["row_id"][0] == row_id
    rows.write_parquet(session.home / "tables" / "imported_preferences.parquet")
    story = " ".join(" ".join(row_story(session.home, row_id)).split())
    assert "playground, line 1" in story
    assert "base model (rev1) preferred to base model (rev1) by ada on" in story
    assert "temperature 0.7, at most 16 tokens, seed 3" in story


def test_votes_add_up_and_keep_their_ids(client: TestClient, session: Session) -> None:
    answers = [ask(client, USER) for _ in range(2)]
    one = vote(client, answers[0], answers[1])["rows"]
    two = vote(client, answers[1], answers[0])["rows"]
    assert imported(session)["row_id"].to_list() == [*one, *two]
    assert len({*one, *two}) == 2


def test_a_vote_replaces_no_import_of_other_rows(client: TestClient, session: Session, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Name a fish.", "chosen": "A trout.", "rejected": "A stone."}\n')
    import_file(ImportRequest(pairs, name="playground"), session.storage.imports())
    answers = [ask(client, USER) for _ in range(2)]
    error = vote(client, answers[0], answers[1])["error"]
    assert "the import named playground does not come from" in error
    assert "import its file under another name" in error
    assert imported(session)["chosen"].to_list() == ["A trout."]
    assert not (session.home / "playground.jsonl").exists()


def test_answers_to_other_questions_or_unknown_ones_are_no_vote(client: TestClient, session: Session) -> None:
    first, other, later = ask(client, USER), ask(client, USER, seed=4), {"id": "gone"}
    assert "same conversation" in vote(client, first, other)["error"]
    assert "not known any more" in vote(client, first, later)["error"]
    assert "different text" in vote(client, first)["error"]
    assert find_import(session.storage.imports(), "playground") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": []}, "1 to 40 turns"),
        ({"turns": [USER, {"role": "assistant", "content": "A crow."}]}, "end with one of the user"),
        ({"turns": [{"role": "tool", "content": "x"}, USER]}, "each turn needs a role"),
        ({"turns": [{"role": "system", "content": " "}, USER]}, "each turn needs a role"),
        ({"turns": ["Name a bird."]}, "turns must be a list of objects"),
        ({"temperature": 2.1}, r"temperature must be in \[0, 2\], got 2.1"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"max_new_tokens": 0}, r"max_new_tokens must be in \[1, 2,048\], got 0"),
        ({"seed": -1}, "seed must be in"),
        ({"model": "9"}, "there is no model '9'"),
    ],
)
def test_a_wrong_question_is_refused(client: TestClient, changes: dict[str, object], message: str) -> None:
    body = {"model": "base", "turns": [USER], **SETTINGS, **changes}
    response = client.post("/home/playground/answers", json=body)
    assert response.status_code == 400
    with pytest.raises(ValueError, match=message):
        raise ValueError(response.json()["error"])


def test_models_are_unloaded_after_an_error_too(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Parrot):
        def encode_chat(self, messages: Sequence[Message]) -> list[int]:
            raise ValueError("the chat template takes no such turn")

    monkeypatch.setattr(playground_module, "IDLE_S", 0.01)
    playground = Playground(session, lambda _base, _adapter: Refusing())
    with pytest.raises(ValueError, match="no such turn"):
        playground.ask("base", AskedTurns((USER,), 0.0, 4, 0))
    deadline = time.monotonic() + 10
    while playground._models and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not playground._models


def test_an_unloaded_model_is_made_again(session: Session) -> None:
    made: list[Parrot] = []

    def make(_base: ModelRecord, _adapter: Path | None) -> Parrot:
        made.append(Parrot())
        return made[-1]

    playground = Playground(session, make)
    asked = AskedTurns((USER,), 0.0, 4, 0)
    for _ in range(2):
        playground.ask("base", asked)
    assert len(made) == 1
    playground.unload()
    playground.ask("champion", asked)
    assert len(made) == 2
