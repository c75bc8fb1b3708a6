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

from resources.registry import MODEL
from resources.storage import Home
from resources.tracking import MlflowTracking
from synth_assets.manifests import read_manifest

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
                process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                for member in tree:
                    member.kill()
                process.wait()
                return True
        return False

    def tables(self) -> dict[str, str]:
        """The hash of each table's bytes, and of each adapter's weights by the name of its folder."""
        files = [*self.home.glob("tables/**/*.parquet"), *self.home.glob("adapters/*/*.safetensors")]
        return {str(p.relative_to(self.home)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}

    def shards(self) -> set[str]:
        return {str(p.relative_to(self.home)) for p in self.home.glob("shards/**/*.parquet")}

    def model_versions(self) -> int:
        """How many versions there are; each must be of other weights."""
        client = MlflowTracking(home=Home(folder=str(self.home))).tracker().client
        found = client.search_model_versions(f"name = '{MODEL}'")
        assert len({version.tags["fingerprint"] for version in found}) == len(found)
        return len(found)


def endure(undisturbed: Run, disturbed: Run, kills: int) -> None:
    """Kill `disturbed` at uniformly random times of the whole, let it end, and compare."""
    seconds = undisturbed.finish()
    moments = random.Random(SEED)
    killed = sum(disturbed.kill_after(moments.uniform(0, seconds)) for _ in range(kills))
    disturbed.finish()
    assert killed >= kills / 2  # a resumed run is shorter: a late moment may find it at its end
    assert disturbed.tables() == undisturbed.tables()
    assert disturbed.shards() == undisturbed.shards()
    assert not list(disturbed.home.glob("tables/**/.*.tmp"))


def test_generation_survives_two_kills(tmp_path: Path) -> None:  # fault 1
    selection = "+key:raw_instructions"
    endure(Run(tmp_path / "a", selection), Run(tmp_path / "b", selection), kills=2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_pipeline_survives_twenty_kills(tmp_path: Path) -> None:  # fault 1
    undisturbed, disturbed = Run(tmp_path / "a", None), Run(tmp_path / "b", None)
    endure(undisturbed, disturbed, kills=20)
    assert disturbed.model_versions() == undisturbed.model_versions() == 5
    for folder in (disturbed.home / "adapters").iterdir():
        if not folder.name.startswith("."):
            read_manifest(folder)
