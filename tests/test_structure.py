"""The structure that import-linter cannot express with package names alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "synth_assets"
OURS = ("synth_assets", "resources", "checks")
WIRING = {"assets.py", "config.py", "metadata.py"}  # the files of a stage that know Dagster
STAGE_FILES = sorted((PACKAGE / "stages").rglob("*.py"))
LOGIC = [path for path in STAGE_FILES if path.name not in WIRING]
ASSETS = [path for path in STAGE_FILES if path.name == "assets.py"]
METADATA = [path for path in STAGE_FILES if path.name == "metadata.py"]
MAX_TEST_LINES = 400
MAX_ASSET_IMPORTS = 12  # modules of the project that an assets.py may import


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (part if is_module(part) else node.module for part in parts)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_module(name: str) -> bool:
    return (PROJECT / name.replace(".", "/")).with_suffix(".py").is_file()


def test_only_the_composition_root_is_a_loose_module() -> None:
    assert [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"] == ["definitions.py"]


@pytest.mark.parametrize("path", LOGIC, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_stage_logic_imports_neither_dagster_nor_resources(path: Path) -> None:
    assert not [name for name in imported_modules(path) if name.partition(".")[0] in {"dagster", "resources", "checks"}]


@pytest.mark.parametrize("path", METADATA, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_metadata_is_made_from_plain_values(path: Path) -> None:
    assert not [name for name in imported_modules(path) if name.partition(".")[0] in {"resources", "checks"}]


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_assets_import_few_modules_of_the_project(path: Path) -> None:
    """An asset fetches, calls a function of its stage and returns the value with metadata."""
    modules = {name for name in imported_modules(path) if name.partition(".")[0] in OURS}
    assert len(modules) <= MAX_ASSET_IMPORTS, sorted(modules)


def test_every_stage_has_assets_checks_and_tests() -> None:
    stages = sorted(folder.name for folder in (PACKAGE / "stages").iterdir() if (folder / "assets.py").is_file())
    assert stages
    for stage in stages:
        assert (PROJECT / "checks" / f"{stage}.py").is_file(), stage
        assert (PROJECT / "tests" / stage).is_dir(), stage


def test_test_files_are_short() -> None:
    """Fakes, factories and deployments that several tests share are in tests/support."""
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in (PROJECT / "tests").rglob("*.py")}
    assert {path.name: lines for path, lines in lengths.items() if lines > MAX_TEST_LINES} == {}
