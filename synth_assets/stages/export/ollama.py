"""Write the Modelfile of an Ollama model: chat template in Go's syntax, stop tokens and system prompt.

Ollama runs the template over the messages of a chat (github.com/ollama/ollama, template/template.go): `.Messages` are
the turns, `.System` is the text of the system turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from synth_assets.llm.chat_encoding import TEMPLATE_DATE
from synth_assets.llm.protocols import Message
from synth_assets.stages.export.errors import ExportError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODELFILE = "Modelfile"
SYSTEM, USER, ANSWER, NEXT = "SystemPlaceholder", "UserPlaceholder", "AnswerPlaceholder", "NextPlaceholder"
CONVERSATIONS = 20
TEXTS = (
    "Hello!",
    "What is 2 + 2?\nShow the steps.",
    "Füße & <b>bold</b> {x}",
    'It\'s "quoted".',
    "第一 line\n\nsecond 🙂",
)


@dataclass(frozen=True)
class ChatPieces:
    """The fixed texts of a chat template around the messages.

    Attributes:
        start: text before everything, such as the beginning-of-text token.
        without_system: text after `start` in a chat without a system message.
        before_system: text before a system message.
        after_system: text after it.
        before_user: text before a user message.
        before_answer: text between a user message and the answer.
        after_answer: text after an answer.
    """

    start: str
    without_system: str
    before_system: str
    after_system: str
    before_user: str
    before_answer: str
    after_answer: str

    @property
    def default_system(self) -> str:
        """Return the system message that the template adds to a chat without one; empty if it adds none."""
        inner = self.without_system.removeprefix(self.before_system).removesuffix(self.after_system)
        return inner if self.without_system == self.before_system + inner + self.after_system else ""

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt that the Go template makes of messages."""
        around = {
            "system": (self.before_system, self.after_system),
            "user": (self.before_user, self.before_answer),
            "assistant": ("", self.after_answer),
        }
        has_system = any(message["role"] == "system" for message in messages)
        text = self.start + ("" if has_system else self.without_system)
        for message in messages:
            before, after = around[message["role"]]
            text += before + message["content"] + after
        return text

    def go_template(self, *, with_start: bool = True) -> str:
        """Return the template in Go's syntax.

        Args:
            with_start: write `start`; without, llama.cpp adds it to each prompt.
        """
        start = self.start if with_start else ""
        otherwise = f"{{{{ if not .System }}}}{self.without_system}{{{{ end }}}}" if self.without_system else ""
        return (
            f"{start}{otherwise}{{{{ range .Messages }}}}"
            f'{{{{ if eq .Role "system" }}}}{self.before_system}{{{{ .Content }}}}{self.after_system}'
            f'{{{{ else if eq .Role "user" }}}}{self.before_user}{{{{ .Content }}}}{self.before_answer}'
            f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{self.after_answer}'
            "{{ end }}{{ end }}"
        )


def chat_pieces(tokenizer: "PreTrainedTokenizerBase") -> ChatPieces:
    """Split the chat template of a tokenizer into its fixed texts.

    Raises:
        ExportError: the template does more than put fixed texts around the messages.
    """
    user, answer = {"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}
    turns = [{"role": "system", "content": SYSTEM}, user, answer, {"role": "user", "content": NEXT}]
    start = str(tokenizer.bos_token or "")
    try:
        whole = render_chat(tokenizer, turns)
        start = start if whole.startswith(start) else ""
        before_system, rest = whole.removeprefix(start).split(SYSTEM)
        after_system, rest = rest.split(USER)
        before_answer, rest = rest.split(ANSWER)
        between_turns, _ = rest.split(NEXT)
        after_answer = render_chat(tokenizer, [user, answer], prompt=False).split(ANSWER)[1]
        alone = render_chat(tokenizer, [user]).split(USER)[0]
    except (TemplateError, ValueError, IndexError) as error:
        raise ExportError(f"the chat template cannot be written as a Modelfile ({error}); use --to gguf") from error
    before_user = between_turns.removeprefix(after_answer)
    pieces = ChatPieces(
        start=start,
        without_system=alone.removeprefix(start).removesuffix(before_user),
        before_system=before_system,
        after_system=after_system.removesuffix(before_user),
        before_user=before_user,
        before_answer=before_answer,
        after_answer=after_answer,
    )
    if different := different_conversations(tokenizer, pieces):
        raise ExportError(
            f"the chat template does more than put fixed texts around messages: {different} of {CONVERSATIONS} "
            "conversations differ in Go's syntax; use --to gguf, whose file holds the template itself"
        )
    return pieces


def different_conversations(tokenizer: "PreTrainedTokenizerBase", pieces: ChatPieces) -> int:
    """Return the number of `conversations` that the chat template and the pieces render differently."""
    return sum(render_chat(tokenizer, turns) != pieces.render(turns) for turns in conversations())


def conversations() -> list[list[Message]]:
    """Return CONVERSATIONS chats that end with a user message: 1 to 5 user turns, with and without a system message."""
    chats: list[list[Message]] = []
    for number in range(CONVERSATIONS):
        roles = ["user", "assistant"] * (number // 2 % 5) + ["user"]
        first = number + number // len(TEXTS)
        turns = [{"role": role, "content": TEXTS[(first + i) % len(TEXTS)]} for i, role in enumerate(roles)]
        system = [{"role": "system", "content": TEXTS[number % len(TEXTS)]}] if number % 2 else []
        chats.append([*system, *turns])
    return chats


def modelfile(pieces: ChatPieces, file: str, end: str, *, adds_bos: bool) -> str:
    """Return a Modelfile.

    Args:
        pieces: the chat template.
        file: name of the GGUF file beside it.
        end: the token that ends a turn.
        adds_bos: llama.cpp adds the beginning-of-text token to each prompt.

    Raises:
        ExportError: the chat template has characters that a Modelfile cannot contain.
    """
    template = pieces.go_template(with_start=not adds_bos)
    stops = list(dict.fromkeys(filter(None, [end, pieces.after_answer.strip()])))
    fixed = "".join(vars(pieces).values())
    if any(mark in fixed for mark in ("{{", "}}", '"""')) or any('"' in stop for stop in stops):
        raise ExportError("the chat template has braces or quotes that a Modelfile cannot contain; use --to gguf")
    lines = [f"FROM ./{file}", f'TEMPLATE """{template}"""', *(f'PARAMETER stop "{stop}"' for stop in stops)]
    if pieces.default_system:
        lines.append(f'SYSTEM """{pieces.default_system}"""')
    return "\n".join(lines) + "\n"


def render_chat(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, prompt: bool = True) -> str:
    """Return a chat in the tokenizer's chat template, up to the answer if `prompt`."""
    options: dict[str, Any] = {"date_string": TEMPLATE_DATE, "enable_thinking": False, "tokenize": False}
    turns = [dict(message) for message in messages]
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=prompt, **options))
