"""Fault 1: a run killed from outside at any moment, then started again, ends where an undisturbed one ends."""

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

from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.registry.mlflow_tracker import MODEL
from synth_assets.storage.manifests import read_manifest

PROGRAM = Path(__file__).parents[1] / "small_deployment.py"
BATCH = "b1"
SEED = 7
LIMIT_S = 580


@dataclass(frozen=True)
class Run:
    """A deployment's program: its home, and the part of the graph that it materialises."""

    home: Path
    selection: str | None

    def start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SYNTH_HOME": str(self.home), "DAGSTER_HOME": str(self.home / "dagster")}
        command = [sys.executable, PROGRAM, BATCH, *([self.selection] if self.selection else [])]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(self) -> float:
        """Run to the end; returns the seconds it took."""
        started = time.monotonic()
        with self.start() as process:
            error = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == 0, error.decode()[-4000:]
        return time.monotonic() - started

    def kill_after(self, seconds: float) -> bool:
        """Start, and end the whole process tree at once after `seconds`; returns whether it was still at work."""
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
        """The hash of each table's bytes, and of each adapter's weights by the name of its folder."""
        files = [*self.home.glob("tables/**/*.parquet"), *self.home.glob("adapters/*/*.safetensors")]
        return {str(p.relative_to(self.home)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}

    def shards(self) -> set[str]:
        return {str(p.relative_to(self.home)) for p in self.home.glob("shards/**/*.parquet")}

    def model_versions(self) -> int:
        """How many versions there are; each must be of other weights."""
        client = MlflowTracking(home=SynthHome(folder=str(self.home))).tracker().client
        found = client.search_model_versions(f"name = '{MODEL}'")
        assert len({version.tags["fingerprint"] for version in found}) == len(found)
        return len(found)


def endure(folder: Path, selection: str | None, kills: int) -> tuple[Run, list[Run]]:
    """An undisturbed run, and ones killed `kills` times in all at times uniform over the undisturbed one's length.

    A resumed run is shorter, so a late moment may find it done; the next home is begun then.
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
    endure(tmp_path, "+key:raw_instructions", kills=2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_pipeline_survives_twenty_kills(tmp_path: Path) -> None:  # fault 1
    undisturbed, disturbed = endure(tmp_path, None, kills=20)
    assert undisturbed.model_versions() == 7
    for run in disturbed:
        assert run.model_versions() == 7
        for adapter in run.home.glob("adapters/[!.]*"):
            read_manifest(adapter)
