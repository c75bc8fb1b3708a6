"""Shared fixtures: a quiet offline process, a home per test, real data, and a count of the deselected tests."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from resources.deployment import OFFLINE
from synth_assets.llm.quiet import QUIET

os.environ.update({**QUIET, **OFFLINE, "OMP_NUM_THREADS": "1", "SYNTH_TIER": "cpu"})

DESELECTED: Counter[str] = Counter()
MARKERS = ("gpu", "slow")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        DESELECTED.update([next((m for m in MARKERS if item.get_closest_marker(m)), "other")])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Remove the MLflow server of the previous test: `mlflow.set_tracking_uri` sets the environment variable."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = ", ".join(f"{DESELECTED[marker]} marked {marker}" for marker in MARKERS)
    terminalreporter.write_line(f"deselected: {counts} (make test-slow runs the slow ones; gpu needs a CUDA device)")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real data; skip the test if it is not set."""
    if "SYNTH_TEST_DATA" not in os.environ:
        pytest.skip("SYNTH_TEST_DATA is not set")
    return Path(os.environ["SYNTH_TEST_DATA"])


@pytest.fixture(autouse=True, scope="session")
def stateless_definitions() -> Iterator[None]:
    """Disable the lookup of definitions state, which the project does not use.

    Dagster looks it up in the last opened instance, which may be closed already: test contexts close their instances on
    garbage collection, in any order.
    """
    from resources.dagster_private import DefsStateStorage

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefsStateStorage, "get", staticmethod(lambda: None))
        yield


@pytest.fixture
def own_links(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the links to homes with special characters in a folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("links")))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set SYNTH_HOME to a new folder for each test, with Dagster's storage inside."""
    home = tmp_path / "synth-home"
    monkeypatch.setenv("SYNTH_HOME", str(home))
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    return home
