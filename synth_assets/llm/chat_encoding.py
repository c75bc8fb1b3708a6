"""Chats as token ids, in which only the template can write a control token.

Text of a message that looks like one (`<|eot_id|>`, `</s>`, `<tool_call>`) is tokenised as plain subwords. Everything
else is tokenised as the rendered chat would be, so tokens(prompt) + tokens(answer) are the tokens of the whole.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from synth_assets.llm.protocols import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_DATE = "26 Jul 2024"  # the Llama 3.1 template's own default; without it some templates write today's date
MARKER = re.compile(r"<.+>|\[.+\]", re.DOTALL)  # shape of an added token that is a control token, special or not
PLACEHOLDERS = range(0xF0000, 0xFFFFD)  # private use plane 15: no template and no strip() touches these characters
USER_WORDS = "\U00100000"  # stands for what the user will say; of plane 16, as no placeholder is

TEMPLATE_FAILURES = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a template raises, by `raise_exception` or where it takes a text for something else."""

LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '### ' + message['role'] | capitalize + ':\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)
TEMPLATES_BY_TOKEN = {"<|start_header_id|>": LLAMA_3, "<|im_start|>": CHATML}
"""For base models, whose tokenizers have no template: the one whose control tokens their vocabulary has."""


class ChatTemplateError(ValueError):
    """A chat that a chat template refuses, or writes differently once an answer follows."""


def encode_chat(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, answer: str | None = None
) -> tuple[list[int], list[int]]:
    """Token ids of a chat up to where the assistant speaks, and of its answer with the end of the turn.

    Args:
        tokenizer: its chat template is used; without one, the template its control tokens belong to.
        messages: role and content of each turn, the last one usually the user's.
        answer: the assistant's words; None where they are to be generated.

    Returns:
        (prompt ids, answer ids); no answer, no ids. What the template writes after the end of the turn is left off.

    Raises:
        ChatTemplateError: the template refuses the turns, or writes the prompt differently once an answer follows.
    """
    prompt, answered, tokens = _written(tokenizer, messages, answer)
    prompt_ids = _encode(tokenizer, prompt, tokens)
    if answer is None:
        return prompt_ids, []
    return prompt_ids, _end_turn(tokenizer, _encode(tokenizer, answered, tokens))


def template_refusal(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], answer: str) -> str:
    """Return why `encode_chat` would raise ChatTemplateError; empty where it would not. Nothing is tokenised."""
    try:
        _written(tokenizer, messages, answer)
    except ChatTemplateError as error:
        return str(error)
    return ""


def encode_user_turn(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat up to where the user speaks next.

    Args:
        tokenizer: as in `encode_chat`.
        messages: what was said so far: a system turn, whole exchanges, or nothing.

    Raises:
        ChatTemplateError: the template refuses these turns (some take no system turn), or does not write the user's
            words.
    """
    hidden, tokens = _hide_control_tokens(tokenizer, [dict(message) for message in messages])
    turns = [*hidden, {"role": "user", "content": USER_WORDS}]
    text = _render(tokenizer, turns, add_generation_prompt=False)
    before, found, _ = text.rpartition(USER_WORDS)
    if not found:
        raise ChatTemplateError(f"the chat template of {tokenizer.name_or_path} does not write the user's words")
    return _encode(tokenizer, before.rstrip(" "), tokens)  # a space belongs to the token of the word after it


def encode_plain(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of untrusted text: no control token, whatever it spells."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]  # pyright: ignore[reportAssignmentType]
    if len(text) < 2 or control_ids(tokenizer).isdisjoint(ids):
        return ids
    half = len(text) // 2
    return encode_plain(tokenizer, text[:half]) + encode_plain(tokenizer, text[half:])


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token that ends an assistant's turn in this tokenizer's chat template."""
    return encode_chat(tokenizer, [{"role": "user", "content": "a"}], answer="a")[1][-1]


def template_of_vocabulary(tokenizer: "PreTrainedTokenizerBase") -> str:
    """A chat template for a tokenizer without one, by the control tokens it has."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    return next((template for token, template in TEMPLATES_BY_TOKEN.items() if token in added), PLAIN)


def control_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Ids of all control tokens: special ones, and added ones shaped like a marker (`<tool_call>`, `[INST]`)."""
    return _controls(tokenizer, len(tokenizer))[1]


@functools.lru_cache(maxsize=8)
def _controls(tokenizer: "PreTrainedTokenizerBase", _size: int) -> tuple[re.Pattern[str] | None, frozenset[int]]:
    """A pattern that finds control tokens in text, and their ids; cached until a token is added."""
    added = tokenizer.added_tokens_decoder.items()
    found = {token.content: index for index, token in added if token.special or MARKER.fullmatch(token.content)}
    longest_first = sorted(found, key=lambda text: (-len(text), text))
    pattern = re.compile("|".join(map(re.escape, longest_first))) if found else None
    return pattern, frozenset(found.values())


def _hide_control_tokens(
    tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The turns with each control token in their text replaced by a placeholder, and what each placeholder hides."""
    pattern, _ = _controls(tokenizer, len(tokenizer))
    if pattern is None or not any(pattern.search(turn["content"]) for turn in turns):
        return turns, {}
    used = set("".join(turn["content"] for turn in turns))
    free = (chr(code) for code in PLACEHOLDERS if chr(code) not in used)
    placeholders: dict[str, str] = {}

    def hide(match: re.Match[str]) -> str:
        if match[0] not in placeholders:
            placeholders[match[0]] = next(free)
        return placeholders[match[0]]

    hidden = [{**turn, "content": pattern.sub(hide, turn["content"])} for turn in turns]
    return hidden, {placeholder: token for token, placeholder in placeholders.items()}


def _written(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], answer: str | None
) -> tuple[str, str, dict[str, str]]:
    """Return a chat as the template writes it: the prompt, the answer, and what each placeholder in them hides."""
    turns = [dict(message) for message in messages]
    whole = turns if answer is None else [*turns, {"role": "assistant", "content": answer}]
    if any(not isinstance(turn.get("content"), str) for turn in whole):
        raise ChatTemplateError(f"a turn without text among {_roles(whole)}")
    hidden, tokens = _hide_control_tokens(tokenizer, whole)
    prompt = _render(tokenizer, hidden[: len(turns)], add_generation_prompt=True)
    if answer is None:
        return prompt, "", tokens
    rendered = _render(tokenizer, hidden, add_generation_prompt=False)
    if not rendered.startswith(prompt):
        raise ChatTemplateError("the chat template changes the prompt once an answer follows")
    return prompt, rendered[len(prompt) :], tokens


def _roles(turns: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(str(turn.get("role")) for turn in turns)


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str, tokens: dict[str, str]) -> list[int]:
    """Ids of rendered text, in which control tokens are meant except where a placeholder stands."""
    pieces = re.split(f"([{''.join(tokens)}])", text) if tokens else [text]
    ids: list[int] = []
    for piece in filter(None, pieces):
        hidden = tokens.get(piece)
        ids += encode_plain(tokenizer, hidden) if hidden else tokenizer.encode(piece, add_special_tokens=False)
    return ids


def _render(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    # Qwen3's template writes an empty <think> block into the prompt; it would else be part of the answer to learn
    options: dict[str, Any] = {"date_string": TEMPLATE_DATE, "enable_thinking": False, "tokenize": False}
    if tokenizer.chat_template is None:
        options["chat_template"] = template_of_vocabulary(tokenizer)
    try:
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, **options))
    except TEMPLATE_FAILURES as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else error
        raise ChatTemplateError(f"the chat template refuses the turns {_roles(turns)}: {reason}") from error


def _end_turn(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> list[int]:
    """The answer's ids up to its last control token; the end of text is added where the template wrote none."""
    controls = control_ids(tokenizer)
    last = max((at for at, token in enumerate(ids) if token in controls), default=None)
    if last is not None:
        return ids[: last + 1]
    end: Any = tokenizer.eos_token_id
    if end is None:
        raise ValueError(f"the tokenizer of {tokenizer.name_or_path} has no token that ends a text")
    return [*ids, end]
