"""Prompt formats of model families: pre-query templates, stop tokens and banned first tokens.

A chat model that continues its pre-query template, the text before a user message, generates an instruction (Magpie,
Xu et al. 2024, arXiv 2406.08464). Prompts come from the tokenizer's own chat template. A row's `pre_query` is the
published template of the family; it verifies the tokenizer before GPU time is spent.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "probe7391"  # stands for the user message; no template contains it


@dataclass(frozen=True)
class PromptFormat:
    """A row of FAMILIES.

    Attributes:
        pre_query: template text before the user message, without a system turn; compared with the tokenizer's.
        stop: control tokens that end a text, besides the tokenizer's end of sequence.
        marker: text in the family's chat templates that the rows below do not contain.
        names: regular expression for model names, matched in lower case.
        system: whether the chat template accepts a system turn and the model was trained with one. Without it, system
            prompts cannot steer topics.
        banned_first: texts that may not start an instruction, each a single token of the family's tokenizers.
        compared_with: the tokenizer that the row was verified against; empty if unverified.
        recipe: version of the row; raise it when the same spec would generate other rows with the family's teachers.
    """

    pre_query: str
    stop: tuple[str, ...]
    marker: str
    names: str
    system: bool = True
    banned_first: tuple[str, ...] = ()
    compared_with: str = ""
    recipe: int = 2  # 1: the prompt is `pre_query`; 2: the prompt comes from the tokenizer's chat template


# Llama 3.1 generates worked solutions ("## Step 1") instead of questions unless headings are banned as the first token.
MARKDOWN_HEADINGS = ("#", "##", "###", "####")  # ids 2, 567, 14711, 827 in Llama 3's tokenizer

FAMILIES: dict[str, PromptFormat] = {
    "llama3": PromptFormat(  # 3, 3.1, 3.2, 3.3
        pre_query="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        stop=("<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        marker="<|start_header_id|>",
        names=r"llama-?3",
        banned_first=MARKDOWN_HEADINGS,
    ),
    "embedded": PromptFormat(
        pre_query="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        stop=("<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        marker="<|start_header_id|>",
        names=r"^embedded",
        system=False,  # the template renders a system turn, but the model was trained without one
        compared_with="the tokenizer that is shipped",
        recipe=1,  # its chat template renders exactly `pre_query`
    ),
    "qwen3": PromptFormat(  # answers follow the template's empty <think> block: chat_encoding.py turns thinking off
        pre_query="<|im_start|>user\n",
        stop=("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
        marker="enable_thinking",
        names=r"qwen-?3",
    ),
    "qwen2": PromptFormat(  # 2, 2.5; the template of 2.5 adds a default system turn, which the row omits
        pre_query="<|im_start|>user\n",
        stop=("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
        marker="<|im_start|>",
        names=r"qwen-?2",
    ),
    "smollm2": PromptFormat(  # the template adds a default system turn
        pre_query="<|im_start|>user\n",
        stop=("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
        marker="<|im_start|>",
        names=r"smollm",
        compared_with="SmolLM2-135M-Instruct's",
    ),
    "gemma3": PromptFormat(  # the template puts a system turn before the first user message
        pre_query="<bos><start_of_turn>user\n",
        stop=("<end_of_turn>", "<eos>", "<start_of_turn>"),
        marker="first_user_prefix",
        names=r"gemma-?3",
    ),
    "gemma2": PromptFormat(
        pre_query="<bos><start_of_turn>user\n",
        stop=("<end_of_turn>", "<eos>", "<start_of_turn>"),
        marker="<start_of_turn>",
        names=r"gemma-?2",
        system=False,  # its template raises an exception
    ),
    "phi3": PromptFormat(
        pre_query="<|user|>\n",
        stop=("<|end|>", "<|endoftext|>", "<|assistant|>", "<|user|>"),
        marker="<|end|>",
        names=r"phi-?3",
    ),
    "mistral": PromptFormat(  # the template puts a system turn before the user message, inside [INST]
        pre_query="<s>[INST]",  # the following space belongs to the first word's token
        stop=("</s>", "[/INST]"),
        marker="[INST]",
        names=r"mistral|mixtral",
    ),
    "zephyr": PromptFormat(
        pre_query="<|user|>\n",
        stop=("</s>",),
        marker="<|user|>",
        names=r"zephyr|tinyllama",
    ),
}


class ChatTokenizer(Protocol):
    """The part of a Transformers tokenizer that `template_pre_query` needs."""

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], *, tokenize: bool) -> str:
        """Render a conversation with the model's chat template."""
        ...


def family_of(name: str, chat_template: str = "") -> str:
    """Return the key of FAMILIES for a model, from its chat template if it has one, else from its name.

    Args:
        name: hub repository, folder, or "embedded:teacher".
        chat_template: Jinja source of the tokenizer's chat template; empty for base models.

    Raises:
        ValueError: no row matches; names the file to add one to.
    """
    named = [key for key, family in FAMILIES.items() if re.search(family.names, name.lower())]
    marked = [key for key, family in FAMILIES.items() if family.marker in chat_template]
    matches = [key for key in marked if key in named] or marked or named
    if not matches:
        raise ValueError(
            f"no model family matches {name}; known families are {', '.join(FAMILIES)}: "
            "add a row to FAMILIES in synth_assets/llm/prompt_formats.py"
        )
    return matches[0]


def family(key: str) -> PromptFormat:
    """Return the row of FAMILIES for a key. Raises ValueError with the known keys."""
    if key not in FAMILIES:
        raise ValueError(f"model family must be one of {', '.join(FAMILIES)}, got {key!r}")
    return FAMILIES[key]


def template_pre_query(tokenizer: ChatTokenizer) -> str:
    """Return the text that a chat template renders before the user message, including a default system turn."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": PROBE}], tokenize=False)
    before, probe, _ = text.partition(PROBE)
    if not probe:
        raise ValueError("the chat template does not render the user message")
    return before


def matches_pre_query(row: PromptFormat, derived: str) -> bool:
    """Return whether a row's pre-query template matches the tokenizer's, ignoring a default system turn.

    Some templates add a default system turn (Llama 3.1 with the date, Qwen2.5 with its name), which the row omits. So
    the derived text must end with the user header, and start with the begin-of-sequence token if the row has one.
    """
    derived = derived.rstrip(" ")
    begin = re.match(r"<\|begin_of_text\|>|<bos>|<s>", row.pre_query)
    opening = begin.group() if begin else ""
    return derived.startswith(opening) and derived.endswith(row.pre_query.removeprefix(opening))


@dataclass(frozen=True)
class TemplateCheck:
    """Comparison of a row of FAMILIES with a model's tokenizer."""

    key: str
    derived: str  # pre-query text that the tokenizer's chat template renders
    missing_stops: tuple[str, ...]  # stop tokens of the row that the tokenizer lacks
    banned: tuple[str, ...]  # banned first texts of the row that are single tokens in this tokenizer

    @property
    def fits(self) -> bool:
        """Return whether the row can be used with the model."""
        return matches_pre_query(FAMILIES[self.key], self.derived) and not self.missing_stops


def check_template(key: str, tokenizer: "PreTrainedTokenizerBase") -> TemplateCheck:
    """Compare the row `key` of FAMILIES with a tokenizer. Raises ValueError if there is no such row."""
    row, vocabulary = family(key), tokenizer.get_vocab()
    return TemplateCheck(
        key=key,
        derived=template_pre_query(tokenizer),  # pyright: ignore[reportArgumentType]
        missing_stops=tuple(token for token in row.stop if token not in vocabulary),
        banned=tuple(t for t in row.banned_first if len(tokenizer.encode(t, add_special_tokens=False)) == 1),
    )
