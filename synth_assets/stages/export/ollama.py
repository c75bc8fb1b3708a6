"""Write the Modelfile of an Ollama model: the chat template in Go's syntax, stop tokens and the system prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from synth_assets.llm.loading import load_tokenizer
from synth_assets.stages.export.gguf import GGUF_FILE
from synth_assets.stages.export.merge import ExportError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODELFILE = "Modelfile"
SYSTEM, USER, ANSWER, NEXT = "SystemPlaceholder", "UserPlaceholder", "AnswerPlaceholder", "NextPlaceholder"


@dataclass(frozen=True)
class ChatPieces:
    """The fixed texts of a chat template around the messages.

    Attributes:
        before_system: text before the system prompt.
        after_system: text after it, before the user turn.
        before_user: start of the user turn.
        before_answer: end of the user turn and start of the answer.
        after_answer: end of the answer.
        default_system: the system prompt that the template adds if there is none.
    """

    before_system: str
    after_system: str
    before_user: str
    before_answer: str
    after_answer: str
    default_system: str

    def render(self, system: str, turns: list[tuple[str, str]], prompt: str) -> str:
        """Return the prompt that Ollama makes of a system prompt, earlier (user, answer) turns and a user message."""
        text = f"{self.before_system}{system}{self.after_system}" if system else ""
        for user, answer in turns:
            text += f"{self.before_user}{user}{self.before_answer}{answer}{self.after_answer}"
        return f"{text}{self.before_user}{prompt}{self.before_answer}"

    def go_template(self) -> str:
        """Return the template in Go's syntax."""
        system = f"{{{{ if .System }}}}{self.before_system}{{{{ .System }}}}{self.after_system}{{{{ end }}}}"
        turn = f"{self.before_user}{{{{ .Prompt }}}}{self.before_answer}{{{{ .Response }}}}{self.after_answer}"
        return system + turn


def chat_pieces(tokenizer: "PreTrainedTokenizerBase") -> ChatPieces:
    """Split the chat template of a tokenizer into its fixed texts.

    Raises:
        ExportError: the template does more than put fixed texts around the messages.
    """
    user, answer = {"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}
    turns = [{"role": "system", "content": SYSTEM}, user, answer, {"role": "user", "content": NEXT}]
    try:
        whole = _render(tokenizer, turns, prompt=True)
        before_system, rest = whole.split(SYSTEM)
        between, rest = rest.split(USER)
        before_answer, rest = rest.split(ANSWER)
        between_turns, last = rest.split(NEXT)
        after_answer = _render(tokenizer, [user, answer], prompt=False).split(ANSWER)[1]
        alone = _render(tokenizer, [user], prompt=True).split(USER)[0]
    except (TemplateError, ValueError, IndexError) as error:
        raise ExportError(f"the chat template cannot be written as a Modelfile ({error}); use --to gguf") from error
    before_user = between_turns.removeprefix(after_answer)
    pieces = ChatPieces(
        before_system=before_system,
        after_system=between.removesuffix(before_user),
        before_user=before_user,
        before_answer=before_answer,
        after_answer=after_answer,
        default_system=alone.removeprefix(before_system).removesuffix(between) if alone.endswith(between) else "",
    )
    follows = pieces.render(SYSTEM, [(USER, ANSWER)], NEXT) == whole and last == before_answer
    if not follows or pieces.render(pieces.default_system, [], USER).split(USER)[0] != alone:
        raise ExportError("the chat template depends on more than the messages' texts, so it cannot be a Modelfile")
    return pieces


def modelfile(merged: Path) -> str:
    """Return the Modelfile of a merged model whose GGUF file lies beside it.

    Raises:
        ExportError: the chat template cannot be written in Go's syntax.
    """
    tokenizer = load_tokenizer(merged)
    pieces = chat_pieces(tokenizer)
    template = pieces.go_template()
    bos = str(tokenizer.bos_token or "")
    if (
        bos
        and template.removeprefix("{{ if .System }}").startswith(bos)
        and tokenizer.encode("a")[0] == (tokenizer.bos_token_id)
    ):
        template = template.replace(bos, "", 1)  # llama.cpp adds it
    stops = dict.fromkeys(filter(None, [str(tokenizer.eos_token or ""), pieces.after_answer.strip()]))
    if '"""' in template + pieces.default_system or any('"' in stop for stop in stops):
        raise ExportError("the chat template has quotes that a Modelfile cannot contain; use --to gguf")
    lines = [f"FROM ./{GGUF_FILE}", f'TEMPLATE """{template}"""']
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [f'SYSTEM """{pieces.default_system}"""'] if pieces.default_system else []
    return "\n".join(lines) + "\n"


def _render(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, str]], *, prompt: bool) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))
