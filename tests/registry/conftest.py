"""Fixtures: a copy of an empty MLflow database."""

from pathlib import Path

import pytest

from tests.support.tracking import copy_database, new_database


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_database(tmp_path_factory.mktemp("database"))


@pytest.fixture
def home(tmp_path: Path, database: Path) -> Path:
    return copy_database(database, tmp_path / "home")
