"""Render a chat template in a process of its own that has a limited time and memory.

Run as a program: read {"template", "tokens"} as JSON from stdin, render each conversation of CHATS, and write what is
wrong with the template to stdout, or nothing.
"""

import json
import sys
from datetime import UTC, datetime
from typing import Any, ClassVar

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SYSTEM, USER, ASSISTANT = ({"role": role, "content": "Hello"} for role in ("system", "user", "assistant"))
LONG = {"role": "user", "content": "Hello, world.\n" * 1_000}
CHATS = (
    [USER],
    [SYSTEM, USER],
    [USER, ASSISTANT],
    [SYSTEM, USER, ASSISTANT, USER],
    [USER, ASSISTANT] * 30,
    [LONG],
)
LARGEST_OUTPUT = 1_000_000  # characters; the longest chat above has 14,000


class Generation(jinja2.ext.Extension):
    """The tag `generation`, with which templates mark what an assistant said."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Return the tag's body as it stands."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def problem(template: str, tokens: dict[str, Any]) -> str:
    """Return what is wrong with a template; empty where it can be used. A chat that it refuses is no fault."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    try:
        compiled = environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    for chat in CHATS:
        for ends_open in (False, True):
            try:
                text = compiled.render(messages=chat, add_generation_prompt=ends_open, **tokens)
            except MemoryError:
                return f"a chat of {len(chat)} turns needs more memory than {sys.argv[1]} bytes"
            except Exception:  # noqa: BLE001, S112 - a template refuses a chat by any error; the run reports it by name
                continue
            if len(text) > LARGEST_OUTPUT:
                return f"a chat of {len(chat)} turns became {len(text):,} characters"
    return ""


def _refuse(message: str) -> str:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now(UTC).strftime(form)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    sys.stdout.write(problem(given["template"], given["tokens"]))
