"""The generated pages of docs/ are what their scripts write from the code."""

import pytest

from docs.draw_architecture import PICTURE, picture
from docs.generate_reference import PAGES, REFERENCE, hardware_table
from resources.deployment import PROJECT


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
