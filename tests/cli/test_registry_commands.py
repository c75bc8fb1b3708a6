"""Registry commands: they name the champion by the alias, and refuse invalid arguments before a run starts."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from resources import deployment
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.cli import app
from synth_assets.cli.ask import models_to_ask
from synth_assets.cli.execution import JobRun
from synth_assets.cli.playground import model_choices
from synth_assets.cli.registry import champion_text, promote_version, roll_back, serving_line
from synth_assets.cli.session import Session
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.cli.trace import find_version
from synth_assets.registry.mlflow_tracker import MODEL
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import to_json
from synth_assets.storage.lineage import LineageError
from synth_assets.storage.manifests import folder_hash, write_manifest
from synth_assets.storage.retractions import Recall, add_recalls
from tests.support.records import make_lora

CONSOLE = RedactingConsole(quiet=True)
BASE = ModelRecord("base", "owner/base", "r", "embedded", 512)


def adapter(home: SynthHome, number: int) -> AdapterRecord:
    """Store an adapter in the home and the registry, trained on one row."""
    key = f"f{number}"
    folder = home.adapters() / key
    folder.mkdir()
    save_file({"weight": np.full(2, number, np.float32)}, folder / "adapter_model.safetensors")
    write_manifest(folder, {})
    record = make_lora(key)
    tracker = MlflowTracking(home=home).tracker()
    run_id, version = tracker.log_training(record, folder, [], {"batch": f"week-{number}"})
    rows = pl.DataFrame({"row_id": [f"row-{number}"], "fate": ["train"]})
    home.leave_row_manifest("lora_adapter", folder_hash(folder), rows)
    return replace(record, mlflow_run_id=run_id, model_version=version)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdapterRecord]:
    """Create a home with two registered versions; the current lora_adapter is the second."""
    folder = tmp_path_factory.mktemp("home")
    home = SynthHome(folder=str(folder))
    adapter(home, 1)
    present = adapter(home, 2)
    (home.tables() / "lora_adapter.json").write_text(to_json(present))
    (home.tables() / "base_model.json").write_text(to_json(BASE))
    (home.tables() / "comparison.json").write_text("{}")
    return folder, present


@pytest.fixture
def session(made: tuple[Path, AdapterRecord]) -> Iterator[Session]:
    """Return a session without an instance, so that no run can start."""
    folder, _ = made
    session = Session(folder, "cpu")
    session.__dict__["instance"] = None
    yield session
    assert session.tracker is not None
    for name in session.tracker.aliases():
        session.tracker.remove_alias(name)
    (folder / "recalls.jsonl").unlink(missing_ok=True)


def point(session: Session, version: str) -> None:
    assert session.tracker is not None
    session.tracker.client.set_registered_model_alias(MODEL, "champion", version)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("99", r"no version 99; the versions are 1 \(lora_adapter\), 2 \(lora_adapter, @champion\)"),
        ("-1", "no version '-1'; the versions are"),
        ("²", "no version '²'"),
        ("", "no version ''"),
        ("@challenger", "@challenger points to no version"),
        ("dpo_adapter", "dpo_adapter has no version"),
        ("\x1b[31m", r"no version '<U\+001B>\[31m'"),
    ],
)
def test_a_wrong_version_is_refused_before_a_run(session: Session, name: str, message: str) -> None:
    point(session, "2")
    for command in (lambda: promote_version(session, name, CONSOLE), lambda: roll_back(session, CONSOLE, name)):
        with pytest.raises(LineageError, match=message):
            command()
    with pytest.raises(LineageError, match=message):
        find_version(session, name)


def test_promote_accepts_the_same_names_as_trace(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    point(session, "1")
    versions: list[object] = []

    def refuse(_: object, run: JobRun, __: object) -> bool:
        versions.append(run.config["ops"]["promotion_decision"]["config"]["version"])
        return False

    monkeypatch.setattr("synth_assets.cli.registry.execute", refuse)
    for name in ("1", "01", "@champion", "champion", "lora_adapter"):
        with pytest.raises(RuntimeError, match="run of the decision failed"):
            promote_version(session, name, CONSOLE)
        assert find_version(session, name).version == versions[-1]
    assert versions == ["1", "1", "1", "1", "2"]


def test_an_invalid_rollback_is_refused_before_a_run(session: Session) -> None:
    with pytest.raises(ValueError, match="nothing was promoted yet"):
        roll_back(session, CONSOLE)
    point(session, "2")
    for options in ({"force": True}, {"force": True, "version": "1"}, {"force": True, "reason": "why"}):
        with pytest.raises(ValueError, match="--force needs a version and a reason"):
            roll_back(session, CONSOLE, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="--reason must not contain a secret"):
        roll_back(session, CONSOLE, reason="leaked https://hunter2@host.example/x")


def test_the_command_exits_with_code_2_and_one_line(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point(session, "2")
    monkeypatch.setattr("synth_assets.cli.session.open_session", lambda _=None: session)
    monkeypatch.setattr(sys, "argv", ["synth", "promote", "99"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("synth: there is no version 99; the versions are 1 (lora_adapter)")


def test_an_older_champion_is_asked_beside_the_current_adapter(session: Session) -> None:
    point(session, "1")
    titles = [model.title for model in models_to_ask(session, BASE)]
    assert titles == ["base", "lora_adapter", "lora_adapter version 1 (champion)"]
    point(session, "2")
    assert [model.title for model in models_to_ask(session, BASE)] == ["base", "lora_adapter (champion)"]
    assert session.tracker is not None
    session.tracker.remove_alias("champion")
    assert [model.title for model in models_to_ask(session, BASE)] == ["base (serves)", "lora_adapter"]


def test_the_playground_offers_base_champion_and_every_version(session: Session) -> None:
    point(session, "1")
    choices = [(choice.key, choice.title) for choice in model_choices(session)]
    assert choices == [
        ("base", "base model"),
        ("champion", "champion: lora_adapter version 1"),
        ("2", "lora_adapter version 2"),
        ("1", "lora_adapter version 1"),
    ]


def test_missing_files_of_the_champion_are_restored(session: Session) -> None:
    point(session, "1")
    shutil.rmtree(session.home / "adapters" / "f1")
    assert models_to_ask(session, BASE)[-1].adapter is not None
    assert (session.home / "adapters" / "f1" / "adapter_model.safetensors").is_file()


def test_a_champion_of_another_base_is_listed_but_not_asked(session: Session) -> None:
    point(session, "1")
    model = models_to_ask(session, replace(BASE, revision="other"))[-1]
    assert model.title == "lora_adapter version 1 (champion)"
    assert model.problem == "cannot be asked: it was trained on base r"


def test_tainted_models_are_marked(session: Session) -> None:
    point(session, "1")
    log = session.home / "recalls.jsonl"
    add_recalls(log, [Recall("row-1", "recalled", "wrong \x1b[31m", "ada", "2026-11-20")])
    assert [model.title for model in models_to_ask(session, BASE)][1:] == [
        "lora_adapter",
        "lora_adapter version 1 (champion, tainted)",
    ]
    text = champion_text(session)
    assert "TAINTED   version 1 serves" in text
    assert "\x1b" not in text


def test_a_champion_without_decision_is_named_by_the_alias(session: Session) -> None:
    assert serving_line(session) == "the base model: no version was promoted yet"
    with pytest.raises(ValueError, match="nothing was promoted yet"):
        champion_text(session)
    point(session, "1")
    text = " ".join(champion_text(session).split())
    assert "serves version 1 (lora_adapter) adapter lora_adapter f1 batch week-1 since an unknown time" in text
    assert "by a person in MLflow: moved by hand" in text
    assert "version 1 (lora_adapter) since" in serving_line(session)


def test_a_user_without_login_name_is_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(deployment, "getuser", unknown)
    monkeypatch.setattr(deployment.os, "getuid", lambda: 4711)
    assert deployment.person() == "user 4711"
    monkeypatch.setattr(deployment, "getuser", lambda: "ada\x1b[31m\n")
    assert deployment.person() == "ada<U+001B>[31m⏎"
