"""Temporary folders: those of killed processes are removed, those in use never."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.storage import SynthHome
from synth_assets.storage.scratch import scratch_folder

HOLDER = """
import sys
from pathlib import Path
from synth_assets.storage.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as scratch:
    (scratch / "rows").write_text("rows")
    print(scratch, flush=True)
    sys.stdin.read()
"""


def hold(parent: Path) -> subprocess.Popen[str]:
    """Start a process that holds a scratch folder until its input ends; it prints the path of the folder."""
    command = [sys.executable, "-c", HOLDER, str(parent)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def held_by(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.name != ".scratch.lock")


def test_only_the_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:  # fault 4
    with hold(tmp_path) as killed, hold(tmp_path) as alive:
        left, used = held_by(killed), held_by(alive)
        os.utime(used, (0, 0))
        killed.kill()
        killed.wait()
        with scratch_folder(tmp_path) as scratch:
            assert not left.exists()
            assert (used / "rows").read_text() == "rows"
            assert scratch.is_dir()
        assert folders(tmp_path) == [used.name, f"{used.name}.lock"]
    assert folders(tmp_path) == []


@pytest.mark.parametrize(("age", "stays"), [(None, True), (0, False)])
def test_a_folder_of_an_earlier_release_is_removed_once_it_is_stale(
    tmp_path: Path, age: int | None, stays: bool
) -> None:
    home = SynthHome(folder=str(tmp_path))
    old = home.shards("filtering") / ".scratch-ab12"
    (old / "inner").mkdir(parents=True)
    if age is not None:
        os.utime(old, (age, age))
    with home.scratch("filtering"):
        assert old.exists() is stays
