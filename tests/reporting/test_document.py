from html.parser import HTMLParser

from synth_assets.reporting.document import Cell, Figure, Points, Sample, Section, Table, cells, page

HOSTILE = "<img src=x onerror=alert(1)> & 'quoted' \"twice\" \x1b[31m"
BLOCKS = (
    HOSTILE,
    Table(["name", "n"], [[Cell(HOSTILE, "http://host/?a=1&b=2"), Cell("1")], [Cell("failed")]], numbers=["n"]),
    Figure("figure", HOSTILE, b"wide", b"narrow"),
    Points([HOSTILE]),
    Sample("first\nsecond", [(HOSTILE, " "), ("base", "x" * 2_001)]),
)


class Elements(HTMLParser):
    """Collect the tags of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(text: str, tag: str) -> list[dict[str, str | None]]:
    parser = Elements()
    parser.feed(text)
    return [attributes for name, attributes in parser.found if name == tag]


def test_every_text_of_a_page_is_escaped() -> None:
    text = page(HOSTILE, [Section(HOSTILE, BLOCKS)])
    assert elements(text, "img") == [
        {"src": "data:image/png;base64,d2lkZQ==", "alt": HOSTILE.replace("\x1b", "<U+001B>")}
    ]
    assert "\x1b" not in text
    assert text.count("&lt;img src=x") == 9  # title, heading, section; one of each block, and two of the figure


def test_a_page_has_one_style_and_loads_nothing() -> None:
    text = page("Title", [])
    (policy,) = [meta["content"] for meta in elements(text, "meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert text.count("<style>") == 1
    assert "{{" not in text


def test_the_last_cell_of_a_short_row_spans_the_rest() -> None:
    text = page("Title", [Section("Part", [Table(["a", "b", "c"], [cells([1]), cells([1, 2])], numbers=["b"])])])
    assert elements(text, "td") == [{"colspan": "3"}, {}, {"colspan": "2"}]
    assert elements(text, "th") == [{}, {"class": "number"}, {}]


def test_answers_keep_their_lines_and_are_truncated() -> None:
    text = page("Title", [Section("Part", BLOCKS)])
    assert "<p>first\nsecond</p>" in text
    assert "<p>(nothing)</p>" in text
    assert f"<p>{'x' * 2_000}…</p>" in text
