"""Fault 5: a disk that is full at fsync, and a disk that fills up during a run."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.deployment import write_instance_settings

pytestmark = pytest.mark.integration

TMPFS_KB, FREE_KB = 4_096, 150  # Dagster's databases take 900 kB in a new home, a run of one asset 500 kB
PROGRAM = Path(__file__).with_name("full_at_fsync.py")


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}, reason="needs seccomp")
def test_no_space_at_fsync_leaves_nothing_and_a_rerun_works(tmp_path: Path) -> None:  # fault 5
    file = tmp_path / "table.parquet"
    command = [sys.executable, PROGRAM, file]
    full = subprocess.run([*command, "full"], capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert full.stderr == f"[Errno 28] No space left on device; wrote 1100 bytes of {file}\n"
    assert list(tmp_path.iterdir()) == []
    subprocess.run(command, check=True)
    assert file.stat().st_size == 1100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_KB}k", "tmpfs", folder]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_run_on_a_full_disk_says_so_in_one_line(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fault 5
    program = "from synth_assets.cli.app import main; main()"
    command = [sys.executable, "-c", program, "run", "--yes", "--in-process", "--select", "key:benchmark_items"]
    home = str(small_disk / "home")
    environment = {**os.environ, "SYNTH_HOME": home, "DAGSTER_HOME": f"{home}/dagster"}
    monkeypatch.setenv("DAGSTER_HOME", environment["DAGSTER_HOME"])
    write_instance_settings(Path(home))
    filler = shutil.disk_usage(small_disk).free - FREE_KB * 1_024
    (small_disk / "other").write_bytes(bytes(filler))
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"synth: no space left on the disk of SYNTH_HOME {home}")
    assert "set SYNTH_HOME" in line
    assert "Traceback" not in result.stdout
