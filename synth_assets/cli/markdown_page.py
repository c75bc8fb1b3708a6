"""Show Markdown files of a home, such as dataset cards, as pages."""

import re
from pathlib import Path

from synth_assets.cli.home_apps import html

FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)  # settings for the hub, not for readers
HEADING = re.compile(r"^# (.+)$", re.MULTILINE)


def markdown_page(path: Path) -> str:
    """Return a Markdown file as an HTML page without its front matter; HTML in the text is shown as text."""
    from markdown_it import MarkdownIt

    text = FRONT_MATTER.sub("", path.read_text("utf-8"), count=1)
    heading = HEADING.search(text)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    title = heading[1] if heading else path.stem
    return html("markdown.html.jinja", title=title, body=body)
