"""Render a chat template in a separate process with limited time and memory.

Run as a program: read {"template", "tokens"} as JSON from stdin, render each conversation of CHATS, and print an error
message if the template cannot be used.
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
LONG_TURN = {"role": "user", "content": "Hello, world.\n" * 1_000}
CHATS = (
    [USER],
    [SYSTEM, USER],
    [USER, ASSISTANT],
    [SYSTEM, USER, ASSISTANT, USER],
    [USER, ASSISTANT] * 30,
    [LONG_TURN],
)
MAX_OUTPUT_CHARACTERS = 1_000_000  # characters; the longest chat above has 14,000


class Generation(jinja2.ext.Extension):
    """Jinja tag `generation`, with which templates mark assistant text."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Return the body of the tag unchanged."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def template_error(template: str, tokens: dict[str, Any]) -> str:
    """Return why a template cannot be used, or "". A template may reject a chat; that is not an error."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    try:
        compiled = environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    for chat in CHATS:
        for add_generation_prompt in (False, True):
            try:
                text = compiled.render(messages=chat, add_generation_prompt=add_generation_prompt, **tokens)
            except MemoryError:
                return f"a chat of {len(chat)} turns needs more memory than {sys.argv[1]} bytes"
            except Exception:  # noqa: BLE001, S112 - a template rejects a chat with any error; encode_chat reports it
                continue
            if len(text) > MAX_OUTPUT_CHARACTERS:
                return f"a chat of {len(chat)} turns rendered to {len(text):,} characters"
    return ""


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now(UTC).strftime(form)


if __name__ == "__main__":
    request = json.load(sys.stdin)
    sys.stdout.write(template_error(request["template"], request["tokens"]))
