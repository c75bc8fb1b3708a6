"""What all tests share: where real data lies, a quiet offline process, and a count of what was left out."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from resources.deployment import OFFLINE
from synth_assets.llm.quiet import QUIET

os.environ.update({**QUIET, **OFFLINE, "OMP_NUM_THREADS": "1", "SYNTH_TIER": "cpu"})

LEFT_OUT: Counter[str] = Counter()
MARKERS = ("gpu", "slow")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        LEFT_OUT.update([next((m for m in MARKERS if item.get_closest_marker(m)), "other")])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Forget the MLflow server of the test before: `mlflow.set_tracking_uri` leaves it in the environment."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = ", ".join(f"{LEFT_OUT[marker]} marked {marker}" for marker in MARKERS)
    terminalreporter.write_line(f"left out: {counts} (make test-slow runs the slow ones; gpu needs a CUDA device)")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data; tests that want it are skipped, and counted so, without it."""
    if "SYNTH_TEST_DATA" not in os.environ:
        pytest.skip("SYNTH_TEST_DATA is not set")
    return Path(os.environ["SYNTH_TEST_DATA"])


@pytest.fixture(autouse=True, scope="session")
def stateless_definitions() -> Iterator[None]:
    """Loading definitions asks the instance that was opened last for their state; ours have none, so nobody is asked.

    Dagster's contexts for tests close their instances when they are collected, in no order: the last one may be gone.
    """
    from resources.dagster_private import DefsStateStorage

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefsStateStorage, "get", staticmethod(lambda: None))
        yield


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SYNTH_HOME of its own for each test, with Dagster's storage inside."""
    home = tmp_path / "synth-home"
    monkeypatch.setenv("SYNTH_HOME", str(home))
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    return home
