"""Opening, contents and filter of a report's page."""

import pytest

from synth_assets.reporting.document import Sample, Section, page
from synth_assets.reporting.page_parts import anchor, with_opening

SECTIONS = [Section(title, ["text"]) for title in ("Scores", "Paired tests", "Before & after")]


def test_the_contents_link_to_every_section() -> None:
    text = page("Report", SECTIONS, ["DPO is <best>."])
    for section in SECTIONS:
        assert f'<a href="#{anchor(section.title)}">' in text
        assert f'<h2 id="{anchor(section.title)}">' in text
    assert anchor("Before & after") == "before-after"
    assert '<ol class="findings"><li>DPO is &lt;best&gt;.</li></ol>' in text
    assert "<script" not in text
    assert "<nav" not in page("Report", SECTIONS[:2])


def test_an_opening_replaces_the_one_before() -> None:
    empty = page("Report", SECTIONS)
    first = with_opening(empty, [("Batch", "one"), ("Commit", "")])
    second = with_opening(first, [("Batch", "<two>")])
    assert "<dt>Batch</dt><dd>one</dd>" in first
    assert "Commit" not in first
    assert "<dd>&lt;two&gt;</dd>" in second
    assert "one</dd>" not in second
    assert with_opening(second, []) == with_opening(empty, [])


def test_a_page_of_an_earlier_release_stays_as_it_is() -> None:
    assert with_opening("<h1>Report</h1>", [("Batch", "one")]) == "<h1>Report</h1>"


@pytest.mark.parametrize(("right", "is_filtered"), [([True, False], True), ([True, True], False), ([False], False)])
def test_the_filter_appears_where_it_changes_something(right: list[bool], is_filtered: bool) -> None:
    samples = [Sample("prompt", [("base", "a"), ("LoRA", "b")], one_right=each) for each in right]
    text = page("Report", [Section("Before and after", samples)])
    assert ('<label class="filter">' in text) is is_filtered
    assert text.count('class="sample one-right"') == sum(right)
