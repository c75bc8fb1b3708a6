"""Fixtures: a deployment with MLflow's database and Dagster's event log."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from resources.storage import SynthHome
from tests.support.promotion import PROMPTS, Deployment
from tests.support.tracking import copy_database, new_database


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_database(tmp_path_factory.mktemp("database"))


@pytest.fixture
def deployment(tmp_path: Path, database: Path) -> Iterator[Deployment]:
    home = copy_database(database, tmp_path / "home")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Deployment(SynthHome(folder=str(home)), instance)


@pytest.fixture(autouse=True)
def no_prompts_yet() -> None:
    PROMPTS.clear()
