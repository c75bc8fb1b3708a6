import io

import pytest

from synth_assets.cli.terminal import RedactingConsole
from synth_assets.reporting.escaping import escaped, escaped_sample, metadata_line, storable, terminal_text
from synth_assets.reporting.markdown import table


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("![x](http://example.org/pixel.png)", "!["),
        ("[click](http://example.org)", "k]("),
        ("\x1b[31mred\x1b[0m", "\x1b"),
        ("nul \0 byte", "\0"),
        ("`code`", "- text: `"),
        ("one\n# heading", "\n#"),
        ("right \u202e to left", "\u202e"),
        ("lone \ud800 surrogate", "\ud800"),
        ("line\u2028separator", "\u2028"),
    ],
)
def test_text_is_inert(text: str, forbidden: str) -> None:  # fault 12
    sample = escaped_sample([{"text": text}])
    assert forbidden not in sample
    sample.encode()


def test_plain_text_is_unchanged() -> None:
    assert escaped_sample([{"asked": "Größe, in cm?", "said": "12"}]) == "- asked: Größe, in cm?\n- said: 12"


def test_html_is_shown_as_text_and_control_characters_as_code_points() -> None:
    assert escaped_sample([{"a": "<b>\x1b"}]) == "- a: &lt;b&gt;&lt;U+001B&gt;"


@pytest.mark.parametrize("text", ["x" * 10_000_000, "<" * 10_000_000, "\x1b" * 10_000, "字" * 10_000])
def test_ten_megabytes_stay_under_four_kilobytes(text: str) -> None:  # fault 12
    sample = escaped_sample([{"a": text, "b": "end"}] * 50)
    assert 0 < len(sample.encode()) < 4_000
    assert "- b: end" in sample


def test_rows_that_do_not_fit_are_omitted() -> None:
    assert escaped_sample([{"a": "12345"}, {"a": "12345"}], limit_bytes=15) == "- a: 12345"
    assert escaped_sample([]) == ""


TYPED = "[red]<b>\x1b[31mx</b> :smile:\nnext \u202e<!channel>\x07"


def test_escaping_for_each_target() -> None:
    assert terminal_text(TYPED) == "[red]<b><U+001B>[31mx</b> :smile:\nnext <U+202E><!channel><U+0007>"
    assert metadata_line(TYPED) == "[red]<b><U+001B>[31mx</b> :smile:⏎next <U+202E><!channel><U+0007>"
    assert escaped("# a\n<b>", 100) == "\\# a⏎&lt;b&gt;"
    assert metadata_line("x" * 9, 4) == "xxx…"


def test_addresses_can_be_escaped() -> None:
    text = "http://e.org www.e.org ada@e.org"
    assert escaped(text) == text
    assert escaped(text, addresses=False) == r"http\://e.org www\.e.org ada\@e.org"


def test_console_escapes_text_once() -> None:
    out = io.StringIO()
    RedactingConsole(file=out, force_terminal=True, soft_wrap=True, highlight=False).print(TYPED)
    assert out.getvalue() == "[red]<b><U+001B>[31mx</b> :smile:\nnext <U+202E><!channel><U+0007>\n"


def test_undecodable_bytes_of_an_argument_can_be_stored() -> None:
    assert storable("a\udcff") == "a\\udcff"


def test_table_escapes_cells_and_aligns_numbers() -> None:
    assert table(("name", "n"), [("a|b_c", 1)], numbers=("n",)) == "| name | n |\n|---|---:|\n| a\\|b\\_c | 1 |"
    with pytest.raises(ValueError, match="expected 2 cells in a row, got 1"):
        table(("name", "n"), [("a",)])
