"""Fault 1: a run that is killed at any moment and restarted gives the same result as an uninterrupted run."""

import hashlib
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from synth_assets.storage.manifests import read_manifest
from tests.support.tracking import tracking_of

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).parents[1] / "support" / "small_deployment.py"
BATCH = "b1"
SEED = 7
LIMIT_S = 580


@dataclass(frozen=True)
class Run:
    """The program small_deployment.py with its home and asset selection."""

    home: Path
    selection: str | None

    def start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SYNTH_HOME": str(self.home), "DAGSTER_HOME": str(self.home / "dagster")}
        command = [sys.executable, PROGRAM, BATCH, *([self.selection] if self.selection else [])]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(self) -> float:
        """Run to the end; return the duration in seconds."""
        started = time.monotonic()
        with self.start() as process:
            error = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == 0, error.decode()[-4000:]
        return time.monotonic() - started

    def kill_after(self, seconds: float) -> bool:
        """Start the program and kill its process tree after `seconds`; return True if it was still running."""
        with self.start() as process:
            try:
                error = process.communicate(timeout=seconds)[1]
            except subprocess.TimeoutExpired:
                tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                for member in tree:
                    member.kill()
                process.wait()
                return True
        assert process.returncode == 0, error.decode()[-4000:]
        return False

    def tables(self) -> dict[str, str]:
        """Return the hash of each table and of the weights of each adapter, by path."""
        files = [*self.home.glob("tables/**/*.parquet"), *self.home.glob("adapters/*/*.safetensors")]
        return {str(p.relative_to(self.home)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}

    def shards(self) -> set[str]:
        return {str(p.relative_to(self.home)) for p in self.home.glob("shards/**/*.parquet")}

    def model_versions(self) -> int:
        """Return the number of model versions, which must have distinct fingerprints."""
        versions = tracking_of(self.home).tracker().versions()
        assert len({tags["fingerprint"] for tags in versions.values()}) == len(versions)
        return len(versions)


def run_with_kills(folder: Path, selection: str | None, kills: int) -> tuple[Run, list[Run]]:
    """Run once without kills, then with `kills` kills at uniform times within the duration of the first run.

    A resumed run is shorter, so it may finish before it is killed; the next run then starts in a new home.
    """
    undisturbed = Run(folder / "undisturbed", selection)
    seconds = undisturbed.finish()
    moments = random.Random(SEED)
    disturbed = [Run(folder / "disturbed-0", selection)]
    while kills:
        if disturbed[-1].kill_after(moments.uniform(0, seconds)):
            kills -= 1
        else:
            disturbed.append(Run(folder / f"disturbed-{len(disturbed)}", selection))
    disturbed[-1].finish()
    for run in disturbed:
        assert run.tables() == undisturbed.tables()
        assert run.shards() == undisturbed.shards()
        assert not list(run.home.glob("tables/**/.*.tmp"))
    return undisturbed, disturbed


def test_generation_survives_two_kills(tmp_path: Path) -> None:  # fault 1
    run_with_kills(tmp_path, "+key:raw_instructions", kills=2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_pipeline_survives_twenty_kills(tmp_path: Path) -> None:  # fault 1
    undisturbed, disturbed = run_with_kills(tmp_path, None, kills=20)
    assert undisturbed.model_versions() == 7
    for run in disturbed:
        assert run.model_versions() == 7
        for adapter in run.home.glob("adapters/[!.]*"):
            read_manifest(adapter)
