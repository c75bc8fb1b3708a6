"""Lines are wrapped between words on a terminal, and left whole in a pipe."""

import io

import pytest

from synth_assets.cli.terminal import RedactingConsole, wrapped


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0123456789", "0123456789"),  # as long as the width
        ("one two three", "one two\n    three"),  # a line without columns is continued with an indent
        ("ab  one two three", "ab  one\n    two\n    three"),  # under the last column
        ("look at /a/long/path/of/a/file", "look at\n    /a/long/path/of/a/file"),  # a long word stays whole
        ("log  /a/long/path/of/a/file", "log  /a/long/path/of/a/file"),  # and beside its label
        ("one\ntwo two", "one\ntwo two"),
    ],
)
def test_lines_break_between_words(text: str, expected: str) -> None:
    assert wrapped(text, 10) == expected


@pytest.mark.parametrize("width", [80, 120])
def test_a_result_is_wrapped_under_its_column(width: int) -> None:
    words = " ".join(["checked"] * 40)
    lines = wrapped(f"   14 s  raw_instructions             done: {words}", width).split("\n")
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith(" " * 38 + "checked") for line in lines[1:])
    assert " ".join(" ".join(lines).split()) == f"14 s raw_instructions done: {words}"


def test_only_a_terminal_gets_wrapped_and_coloured_lines() -> None:
    line = " ".join(["word"] * 30)
    piped, terminal = io.StringIO(), io.StringIO()
    RedactingConsole(file=piped, width=40, soft_wrap=True).print(line, style="red")
    assert piped.getvalue() == f"{line}\n"
    console = RedactingConsole(file=terminal, width=40, soft_wrap=True, force_terminal=True, color_system="standard")
    console.print(line, style="red")
    assert "\x1b[31m" in terminal.getvalue()
    assert len(terminal.getvalue().splitlines()) == 5  # 8 words, then 7 with the indent
