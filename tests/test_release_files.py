"""Version, changelog, citation and bounds agree."""

import re
import tomllib

import pytest

from resources.deployment import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
PINS = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text("utf-8").split())
PRIVATE_API = ("dagster", "dagster-webserver", "trl", "transformers", "peft")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_changelog_and_citation_name_the_version() -> None:
    version = PYPROJECT["version"]
    assert f"## [{version}] - " in (PROJECT / "CHANGELOG.md").read_text("utf-8")
    assert f"version: {version}\n" in (PROJECT / "CITATION.cff").read_text("utf-8")


@pytest.mark.parametrize("requirement", PYPROJECT["dependencies"])
def test_a_lower_bound_is_the_version_that_is_tested(requirement: str) -> None:
    name, _, bounds = re.sub(r"\[[a-z]+\]", "", requirement).partition(">=")
    pins = {normalised(key): version for key, version in PINS.items()}
    lower, _, upper = bounds.partition(",<")
    assert lower == pins[normalised(name)]
    assert bool(upper) == (name in PRIVATE_API)


def test_the_hook_runs_the_pinned_ruff() -> None:
    assert f"rev: v{PINS['ruff']} " in (PROJECT / ".pre-commit-config.yaml").read_text("utf-8")
