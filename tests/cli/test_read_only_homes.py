"""Read-only homes: commands that read work on copies; commands that write name the file that is not writable."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.tracking import MlflowTracking
from synth_assets.cli.session import Session, open_session
from synth_assets.schemas.records import ChampionRecord
from synth_assets.schemas.serialization import to_json

pytestmark = pytest.mark.integration

PROGRAM = """
import sys
from synth_assets.cli.app import app
for arguments in ARGUMENTS:
    print("==", *arguments)
    try:
        app(arguments, standalone_mode=False)
    except Exception as error:
        print("ERROR", error)
"""
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
READING = [["status"], ["champion"], ["history"], ["why", "aa11"], ["plan"], ["recall"]]
WRITING = [["import", "rows.jsonl"], ["run", "--yes"], ["rollback"], ["recall", "aa11", "--reason", "x"]]


def without_override() -> None:
    """Drop the capability by which root ignores file permissions."""
    if os.getuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def synth(*commands: list[str], home: Path) -> dict[str, str]:
    """Return the output of each command, by its name. All run in one process without root's capability."""
    program = PROGRAM.replace("ARGUMENTS", repr(list(commands)))
    environment = {**os.environ, "SYNTH_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        preexec_fn=without_override,
    )
    assert result.returncode == 0, result.stderr
    assert "dagster.yaml" not in result.stderr
    parts = (part.partition("\n") for part in result.stdout.split("== ")[1:])
    return {head.split()[0]: text for head, _, text in parts}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a home with a champion, its decision in Dagster's history, and the manifest of one row."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("made") / "home"
        patch.setenv("SYNTH_HOME", str(folder))
        patch.setenv("DAGSTER_HOME", str(folder / "dagster"))
        fill(open_session("cpu"))
    return folder


def fill(session: Session) -> None:
    MlflowTracking(home=session.storage).initialise()
    record = ChampionRecord("7", "lora_adapter", "f", "", "", "promoted", "me", "2026-01-01", "r", "it is better")
    (session.storage.tables() / "champion.json").write_text(to_json(record), "utf-8")
    facts = {"action": "promoted", "from": "base", "to": "7", "reason": "it is better", "decision": "promoted"}
    facts |= {"judged": "7", "who": "me", "asked_by": "me", "flagged": False}
    session.instance.report_runless_asset_event(dg.AssetMaterialization("champion", metadata=facts))
    fates = pl.DataFrame({"row_id": ["aa11"], "fate": ["kept"]})
    session.storage.leave_row_manifest("filtered_instructions", "f1", fates)
    session.instance.dispose()


def set_writable(folder: Path, is_writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o700 if path.is_dir() else 0o600) if is_writable else (0o500 if path.is_dir() else 0o400))


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


def test_a_read_only_copy_is_readable_and_unchanged(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    shutil.copytree(made, copy)
    set_writable(copy, False)
    before = state(copy)
    try:
        printed = synth(*READING, *WRITING, ["doctor"], home=copy)
        assert state(copy) == before
    finally:
        set_writable(copy, True)
    assert "champion" in printed["status"]
    assert printed["champion"].startswith("serves")
    assert "promoted" in printed["history"]
    assert "aa11" in printed["why"]
    for name in ("status", "champion", "history", "why", "plan"):
        assert "ERROR" not in printed[name], printed[name]
    for name in ("import", "run", "rollback", "recall"):
        assert f"ERROR {copy} is not writable" in printed[name], printed[name]
    assert f"FAIL state          SYNTH_HOME {copy} cannot be written" in printed["doctor"]


def test_a_database_that_is_not_writable_is_named(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(made, home)
    (home / "mlflow.db").chmod(0o400)
    printed = synth(["champion"], ["rollback"], home=home)
    assert printed["champion"].startswith("serves")
    assert f"ERROR {home / 'mlflow.db'} is not writable" in printed["rollback"]
