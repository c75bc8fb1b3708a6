import pytest

from synth_assets.storage.code_digest import code_digest

CODE = '''"""A module."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

LIMIT = 3  # rows


def area(radius: float) -> float:
    """Return the area."""
    from statistics import fmean

    return math.pi * fmean([radius]) ** 2


class Circle:
    """A circle."""

    radius: float
    """In metres."""
'''


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Return the area."""', '"""Say how large a circle is.\n\n    In square metres.\n    """'),
        ('"""In metres."""', ""),
        ("  # rows", "  # a comment of another kind"),
        ("import math", "import other.place.math as math"),
        ("from statistics import fmean", "from package.stats import fmean"),
        ("from os import PathLike", "from pathlib import Path"),
        ("(radius: float) -> float", "(radius)"),
        ("LIMIT = 3", "LIMIT = (3)"),
    ],
)
def test_irrelevant_change_keeps_the_digest(before: str, after: str) -> None:
    assert before in CODE
    assert code_digest(CODE.replace(before, after)) == code_digest(CODE)


@pytest.mark.parametrize(
    ("before", "after"), [("LIMIT = 3", "LIMIT = 4"), ("** 2", "** 3"), ("class Circle", "class Disc")]
)
def test_relevant_change_changes_the_digest(before: str, after: str) -> None:
    assert code_digest(CODE.replace(before, after)) != code_digest(CODE)


def test_a_definition_may_move_between_modules() -> None:
    head, _, tail = CODE.partition("class Circle")
    assert code_digest("class Circle" + tail, head) == code_digest(CODE)
