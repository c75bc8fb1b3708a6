"""The structure that import-linter cannot express with package names alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "synth_assets"
OURS = ("synth_assets", "resources", "checks")
LOGIC = sorted(path for path in (PACKAGE / "stages").rglob("*.py") if path.name != "assets.py")


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_only_the_composition_root_is_a_loose_module() -> None:
    assert [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"] == ["definitions.py"]


@pytest.mark.parametrize("path", LOGIC, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_stage_logic_imports_neither_dagster_nor_resources(path: Path) -> None:
    assert not [name for name in imported_modules(path) if name.partition(".")[0] in {"dagster", "resources", "checks"}]


def test_every_stage_has_assets_checks_and_tests() -> None:
    stages = sorted(folder.name for folder in (PACKAGE / "stages").iterdir() if (folder / "assets.py").is_file())
    assert stages
    for stage in stages:
        assert (PROJECT / "checks" / f"{stage}.py").is_file(), stage
        assert (PROJECT / "tests" / stage).is_dir(), stage
