"""Encode chats as token ids, so that only the chat template can produce control tokens.

Message text that looks like a control token (`<|eot_id|>`, `</s>`, `<tool_call>`) is tokenised as plain subwords.
Everything else is tokenised as in the rendered chat, so tokens(prompt) + tokens(answer) equals tokens(chat).
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from synth_assets.llm.protocols import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_DATE = "26 Jul 2024"  # default of the Llama 3.1 template; without it some templates write today's date
MARKER = re.compile(r"<.+>|\[.+\]", re.DOTALL)  # an added token of this form is a control token, special or not
PLACEHOLDERS = range(0xF0000, 0xFFFFD)  # private use plane 15, which templates and strip() leave unchanged
USER_PLACEHOLDER = "\U00100000"  # stands for the next user message; from plane 16, outside PLACEHOLDERS

TEMPLATE_FAILURES = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""Exceptions of a template: from `raise_exception`, or from an operation on a value of the wrong type."""

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
"""Chat templates for tokenizers without one (base models), by a control token in their vocabulary."""


class ChatTemplateError(ValueError):
    """The chat template rejects the messages, or renders the prompt differently when an answer follows."""


def encode_chat(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, answer: str | None = None
) -> tuple[list[int], list[int]]:
    """Encode a chat as the token ids of its prompt and of the assistant's answer.

    Args:
        tokenizer: supplies the chat template, or the control tokens that select a default template.
        messages: role and content of each turn; the last turn is usually the user's.
        answer: the assistant's answer, or None to encode a prompt for generation.

    Returns:
        (prompt ids, answer ids). The prompt ends with the generation prompt, the answer with the end-of-turn token.
        The answer ids are empty if `answer` is None.

    Raises:
        ChatTemplateError: the template rejects the messages, or renders the prompt differently when an answer follows.
    """
    prompt, answered, tokens = _render_chat(tokenizer, messages, answer)
    prompt_ids = _encode(tokenizer, prompt, tokens)
    if answer is None:
        return prompt_ids, []
    return prompt_ids, _end_turn(tokenizer, _encode(tokenizer, answered, tokens))


def template_refusal(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], answer: str) -> str:
    """Return the message of the ChatTemplateError that `encode_chat` would raise, or "". Does not tokenise."""
    try:
        _render_chat(tokenizer, messages, answer)
    except ChatTemplateError as error:
        return str(error)
    return ""


def encode_user_turn(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """Encode a chat up to the start of the next user message.

    Args:
        tokenizer: as in `encode_chat`.
        messages: the turns so far: a system turn, complete exchanges, or nothing.

    Raises:
        ChatTemplateError: the template rejects the messages (some accept no system turn), or does not render the user
            message.
    """
    hidden, tokens = _hide_control_tokens(tokenizer, [dict(message) for message in messages])
    turns = [*hidden, {"role": "user", "content": USER_PLACEHOLDER}]
    text = _render(tokenizer, turns, add_generation_prompt=False)
    before, placeholder, _ = text.rpartition(USER_PLACEHOLDER)
    if not placeholder:
        raise ChatTemplateError(f"the chat template of {tokenizer.name_or_path} does not render the user message")
    return _encode(tokenizer, before.rstrip(" "), tokens)  # a space belongs to the first token of the next word


def encode_plain(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Encode untrusted text without ever producing a control token."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]  # pyright: ignore[reportAssignmentType]
    if len(text) < 2 or control_ids(tokenizer).isdisjoint(ids):
        return ids
    half = len(text) // 2
    return encode_plain(tokenizer, text[:half]) + encode_plain(tokenizer, text[half:])


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id of the token that ends an assistant turn in the tokenizer's chat template."""
    return encode_chat(tokenizer, [{"role": "user", "content": "a"}], answer="a")[1][-1]


def default_chat_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a chat template for a tokenizer without one, selected by its control tokens."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    return next((template for token, template in TEMPLATES_BY_TOKEN.items() if token in added), PLAIN)


def control_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the ids of all control tokens: special tokens, and added tokens like `<tool_call>` or `[INST]`."""
    return _control_tokens(tokenizer, len(tokenizer))[1]


@functools.lru_cache(maxsize=8)
def _control_tokens(tokenizer: "PreTrainedTokenizerBase", _size: int) -> tuple[re.Pattern[str] | None, frozenset[int]]:
    """Return a pattern that matches control tokens in text, and their ids; cached until a token is added."""
    added = tokenizer.added_tokens_decoder.items()
    controls = {token.content: index for index, token in added if token.special or MARKER.fullmatch(token.content)}
    longest_first = sorted(controls, key=lambda text: (-len(text), text))
    pattern = re.compile("|".join(map(re.escape, longest_first))) if controls else None
    return pattern, frozenset(controls.values())


def _hide_control_tokens(
    tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Replace control tokens in the turns' text with placeholders; return the turns and placeholder -> token."""
    pattern, _ = _control_tokens(tokenizer, len(tokenizer))
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


def _render_chat(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], answer: str | None
) -> tuple[str, str, dict[str, str]]:
    """Render a chat; return the prompt, the answer, and the control token behind each placeholder."""
    turns = [dict(message) for message in messages]
    whole = turns if answer is None else [*turns, {"role": "assistant", "content": answer}]
    if any(not isinstance(turn.get("content"), str) for turn in whole):
        raise ChatTemplateError(f"every turn needs text content; the turns are {_role_names(whole)}")
    hidden, tokens = _hide_control_tokens(tokenizer, whole)
    prompt = _render(tokenizer, hidden[: len(turns)], add_generation_prompt=True)
    if answer is None:
        return prompt, "", tokens
    rendered = _render(tokenizer, hidden, add_generation_prompt=False)
    if not rendered.startswith(prompt):
        raise ChatTemplateError("the chat template renders the prompt differently when an answer follows")
    return prompt, rendered[len(prompt) :], tokens


def _role_names(turns: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(str(turn.get("role")) for turn in turns)


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str, tokens: dict[str, str]) -> list[int]:
    """Encode rendered text: its control tokens as control tokens, those behind placeholders as plain text."""
    pieces = re.split(f"([{''.join(tokens)}])", text) if tokens else [text]
    ids: list[int] = []
    for piece in filter(None, pieces):
        hidden = tokens.get(piece)
        ids += encode_plain(tokenizer, hidden) if hidden else tokenizer.encode(piece, add_special_tokens=False)
    return ids


def _render(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    # With thinking off, Qwen3's template puts its empty <think> block into the prompt, not into the trained answer
    options: dict[str, Any] = {"date_string": TEMPLATE_DATE, "enable_thinking": False, "tokenize": False}
    if tokenizer.chat_template is None:
        options["chat_template"] = default_chat_template(tokenizer)
    try:
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, **options))
    except TEMPLATE_FAILURES as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else error
        raise ChatTemplateError(f"the chat template rejects the turns {_role_names(turns)}: {reason}") from error


def _end_turn(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> list[int]:
    """Return the answer's ids up to its last control token; append the end-of-text token if it has none."""
    controls = control_ids(tokenizer)
    last = max((index for index, token in enumerate(ids) if token in controls), default=None)
    if last is not None:
        return ids[: last + 1]
    end: Any = tokenizer.eos_token_id
    if end is None:
        raise ValueError(f"the tokenizer of {tokenizer.name_or_path} has no end-of-text token")
    return [*ids, end]
