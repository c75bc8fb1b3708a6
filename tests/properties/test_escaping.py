"""Properties of escaping: no text acts as HTML, Markdown or a terminal code."""

import re

from hypothesis import given
from hypothesis import strategies as st

from synth_assets.reporting.escaping import escaped, terminal_line, terminal_text

UNESCAPED = re.compile(r"(?<!\\)(?:\\\\)*[`*_\[\]~|]")


@given(st.text(max_size=200))
def test_no_tag_and_no_markup_is_left(text: str) -> None:
    shown = escaped(text)
    assert "<" not in shown
    assert "\n" not in shown
    assert not UNESCAPED.search(shown)
    assert not shown.startswith("#")


@given(st.text(max_size=400), st.integers(8, 300))
def test_the_limit_in_bytes_holds(text: str, limit: int) -> None:
    assert len(escaped(text, limit).encode("utf-8", "surrogatepass")) <= limit + len("…".encode())


@given(st.text(max_size=300))
def test_a_terminal_sees_no_control_character(text: str) -> None:
    for shown in (terminal_line(text), terminal_text(text).replace("\n", "").replace("\t", "")):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
