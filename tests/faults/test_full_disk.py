"""Fault 5: a disk that turns out full when a file is synced."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("full_at_fsync.py")


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}, reason="needs seccomp")
def test_no_space_at_fsync_leaves_nothing_and_a_rerun_works(tmp_path: Path) -> None:  # fault 5
    file = tmp_path / "table.parquet"
    command = [sys.executable, PROGRAM, file]
    full = subprocess.run([*command, "full"], capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert full.stderr == f"[Errno 28] No space left on device; 1100 bytes were written for {file}\n"
    assert list(tmp_path.iterdir()) == []
    subprocess.run(command, check=True)
    assert file.stat().st_size == 1100
