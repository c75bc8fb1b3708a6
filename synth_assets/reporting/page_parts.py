"""Parts of a report's HTML page besides its sections: the opening, the contents, and the filter of the samples.

The page has no script; the filter is a check box and a style rule.
"""

import html
import re
from collections.abc import Sequence

from synth_assets.reporting.escaping import terminal_line

MAX_CHARACTERS = 1_000
MIN_LISTED = 3  # a page with fewer sections needs no contents
OPENING, END_OF_OPENING = "<!-- opening -->", "<!-- end of opening -->"
PARTS_STYLE = """
.opening { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0 0 1rem; }
.opening dt { color: var(--soft); } .opening dd { margin: 0; overflow-wrap: anywhere; }
.findings { font-size: 1.05rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; }
nav li { margin: 0; }
.filter { display: inline-block; margin: .4rem 0; }
section:has(.filter input:checked) .sample:not(.one-right) { display: none; }
"""
FILTER = '<label class="filter"><input type="checkbox"> only where one of the two is right</label>\n'


def anchor(title: str) -> str:
    """Return the id of the section with a title."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def contents(titles: Sequence[str]) -> str:
    """Return links to the sections; empty for a short page."""
    if len(titles) < MIN_LISTED:
        return ""
    links = "".join(f'<li><a href="#{anchor(title)}">{_text(title)}</a></li>' for title in titles)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n'


def findings_list(findings: Sequence[str]) -> str:
    """Return the findings as a list; empty without any."""
    points = "".join(f"<li>{_text(finding)}</li>" for finding in findings)
    return f'<ol class="findings">{points}</ol>\n' if points else ""


def with_opening(page: str, facts: Sequence[tuple[str, str]]) -> str:
    """Return a page with these facts, label and text, as its opening; they replace an earlier opening.

    The facts are known after the comparison that the page reports, such as the decision. A page without the marks of
    an opening, of an earlier release, is returned unchanged.
    """
    before, begin, rest = page.partition(OPENING)
    _, end, after = rest.partition(END_OF_OPENING)
    if not (begin and end):
        return page
    rows = "".join(f"<dt>{_text(label)}</dt><dd>{_text(text)}</dd>" for label, text in facts if text)
    return f'{before}{begin}<dl class="opening">{rows}</dl>{end}{after}'


def _text(text: str) -> str:
    return html.escape(terminal_line(text, MAX_CHARACTERS))
