from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

import checks
from synth_assets.cli.run import Launch
from synth_assets.cli.session import Session, open_session
from synth_assets.cli.unchanged import RECORD, remember_run, unchanged_since_last_run


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    home = tmp_path_factory.mktemp("unchanged") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTH_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        patch.setenv("SYNTH_TIER", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        opened = open_session("cpu")
        _run_something(opened.instance)
        (opened.home / "tables").mkdir()
        (opened.home / "tables" / "rows.json").write_text("{}", "utf-8")
        yield opened


def _run_something(instance: dg.DagsterInstance) -> str:
    @dg.asset
    def thing() -> int:
        return 1

    return dg.materialize([thing], instance=instance).run_id


def test_an_unchanged_run_returns_the_id_of_the_last_run(session: Session) -> None:
    assert unchanged_since_last_run(session, Launch()) == ""
    remember_run(session, Launch())
    assert unchanged_since_last_run(session, Launch()) == session.instance.get_runs(limit=1)[0].run_id


@pytest.mark.parametrize(
    "change",
    [
        lambda session: (session.home / "tables" / "rows.json").write_text("{ }", "utf-8"),
        lambda session: (session.home / "tables" / "rows.json").unlink(),
        lambda session: (session.home / "tables" / "another.json").touch(),
        lambda session: _run_something(session.instance),
        lambda session: (session.home / RECORD).write_text("{", "utf-8"),
    ],
    ids=["table_changed", "table_gone", "file_imported", "another_run", "torn_record"],
)
def test_a_changed_input_makes_the_next_run_start(session: Session, change: Callable[[Session], object]) -> None:
    remember_run(session, Launch())
    change(session)
    assert unchanged_since_last_run(session, Launch()) == ""


@pytest.mark.parametrize(
    "launch", [Launch(batch="second"), Launch(samples=7), Launch(settings=("lora_adapter.rank=4",))]
)
def test_other_options_make_the_next_run_start(session: Session, launch: Launch) -> None:
    remember_run(session, Launch())
    assert unchanged_since_last_run(session, launch) == ""


@pytest.mark.parametrize(
    ("name", "counts"),
    [("rules.py", True), ("page.html.jinja", True), ("words.txt", True), ("__pycache__/rules.pyc", False)],
)
def test_a_changed_file_of_the_code_makes_the_next_run_start(
    session: Session, name: str, counts: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checks, "__path__", [str(tmp_path)])
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    path.write_text("one", "utf-8")
    remember_run(session, Launch())
    path.write_text("two", "utf-8")
    assert (unchanged_since_last_run(session, Launch()) == "") is counts


def test_the_tier_in_use_counts_however_it_was_chosen(session: Session) -> None:
    remember_run(session, Launch(tier="cpu"))
    assert unchanged_since_last_run(session, Launch()) == session.instance.get_runs(limit=1)[0].run_id


@pytest.mark.parametrize("name", ["SYNTH_BENCHMARKS", "MLFLOW_TRACKING_URI", "SYNTH_WEBHOOK_URL"])
def test_another_environment_makes_the_next_run_start(
    session: Session, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remember_run(session, Launch())
    monkeypatch.setenv(name, str(tmp_path))
    assert unchanged_since_last_run(session, Launch()) == ""
