"""The generated pages of docs/ are what their scripts write from the code."""

import pytest

from docs.draw_architecture import PICTURE, picture
from docs.generate_reference import PAGES, REFERENCE, hardware_table
from resources.deployment import PROJECT
from synth_assets.definitions import STAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_script_writes(name: str) -> None:
    stored = (REFERENCE / name).read_text("utf-8")
    assert stored == PAGES[name](), f"docs/reference/{name} is out of date: run `python docs/generate_reference.py`"


def test_every_generated_page_has_a_script() -> None:
    assert {path.name for path in REFERENCE.glob("*.md")} == {*PAGES, "index.md"}


def test_the_picture_of_the_architecture_shows_the_import_contract() -> None:
    assert PICTURE.read_text("utf-8") == picture(), "run `python docs/draw_architecture.py`"


def test_readme_has_the_hardware_table() -> None:
    assert hardware_table() in (PROJECT / "README.md").read_text("utf-8"), "copy `hardware_table()` into README.md"


@pytest.mark.parametrize("page", ["README.md", "docs/concepts.md"])
def test_the_stage_table_has_every_stage(page: str) -> None:
    text = (PROJECT / page).read_text("utf-8")
    assert [name for name in (module.__name__.split(".")[-2] for module in STAGES) if f"| {name} |" not in text] == []


def test_the_architecture_page_names_every_package() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text("utf-8")
    packages = [path.parent.name for path in (PROJECT / "synth_assets").glob("*/__init__.py")]
    stages = [path.parent.name for path in (PROJECT / "synth_assets" / "stages").glob("*/__init__.py")]
    assert [name for name in (*packages, *stages) if f"{name}/" not in text] == []
