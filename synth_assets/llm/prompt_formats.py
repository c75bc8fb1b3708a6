"""Model families: what ends a turn and what may not begin one, which a chat template does not say.

A chat model that continues its pre-query template, where a user's words would stand, invents an instruction (Magpie,
Xu et al. 2024, arXiv 2406.08464). The prompt comes from the tokenizer's own chat template. `pre_query` of a row is what
the family's makers publish: a cross-check of that template before a GPU-hour is spent on it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "probe7391"  # stands for the user's words; occurs in no template


@dataclass(frozen=True)
class PromptFormat:
    """A row of FAMILIES.

    Attributes:
        pre_query: template text before a user's first word, without any system turn; compared with the tokenizer's.
        stop: control tokens that end a text, beside the tokenizer's own end of sequence.
        marker: text that the family's chat templates hold and the rows below it, of another family, do not.
        names: regular expression for model names, searched in lower case.
        system: whether the chat template takes a system turn, and the model knows one: as a turn of its own or before
            the user's words. Without, topics cannot be steered by system prompts.
        banned_first: texts that an instruction may not begin with, each one token of the family's tokenizers.
        compared_with: the tokenizer that the row was compared with; empty where nobody has done it.
        recipe: raise it when the same spec would give other rows with teachers of the family.
    """

    pre_query: str
    stop: tuple[str, ...]
    marker: str
    names: str
    system: bool = True
    banned_first: tuple[str, ...] = ()
    compared_with: str = ""
    recipe: int = 2  # 1: the prompt was `pre_query`; 2: it is what the tokenizer's chat template writes


# Llama-3.1 writes worked solutions ("## Step 1") instead of questions unless headings are banned as the first token.
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
        system=False,  # its template would write one, but the model never saw any
        compared_with="the tokenizer that is shipped",
        recipe=1,  # its template writes `pre_query`, to the byte
    ),
    "qwen3": PromptFormat(  # answers begin with the template's empty <think> block: chat.py asks for no thinking
        pre_query="<|im_start|>user\n",
        stop=("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
        marker="enable_thinking",
        names=r"qwen-?3",
    ),
    "qwen2": PromptFormat(  # 2, 2.5; the template of 2.5 writes a system turn of its own, which the row leaves out
        pre_query="<|im_start|>user\n",
        stop=("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
        marker="<|im_start|>",
        names=r"qwen-?2",
    ),
    "smollm2": PromptFormat(  # the template writes a system turn of its own
        pre_query="<|im_start|>user\n",
        stop=("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
        marker="<|im_start|>",
        names=r"smollm",
        compared_with="SmolLM2-135M-Instruct's",
    ),
    "gemma3": PromptFormat(  # a system turn is written before the first user's words
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
    "mistral": PromptFormat(  # a system turn is written before the user's words, within [INST]
        pre_query="<s>[INST]",  # the space after it belongs to the first word's token
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
    """The part of a Transformers tokenizer that `pre_query_of_template` needs."""

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], *, tokenize: bool) -> str:
        """The conversation as the model's chat template writes it."""
        ...


def family_of(name: str, chat_template: str = "") -> str:
    """The key of FAMILIES for a model, by its chat template where there is one, else by its name.

    Args:
        name: hub repository, folder, or "embedded:teacher".
        chat_template: the Jinja text of the tokenizer; empty for base models.

    Raises:
        ValueError: no row fits; says how to add one.
    """
    named = [key for key, family in FAMILIES.items() if re.search(family.names, name.lower())]
    marked = [key for key, family in FAMILIES.items() if family.marker in chat_template]
    fitting = [key for key in marked if key in named] or marked or named
    if not fitting:
        raise ValueError(
            f"no model family fits {name}; there are {', '.join(FAMILIES)}: "
            "add a row to FAMILIES in synth_assets/llm/prompt_formats.py"
        )
    return fitting[0]


def family(key: str) -> PromptFormat:
    """The row of FAMILIES, or ValueError naming the rows there are."""
    if key not in FAMILIES:
        raise ValueError(f"no model family {key!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[key]


def pre_query_of_template(tokenizer: ChatTokenizer) -> str:
    """What a tokenizer's chat template writes before a user's first word, a default system turn included."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": PROBE}], tokenize=False)
    before, found, _ = text.partition(PROBE)
    if not found:
        raise ValueError("the chat template does not write the user's words")
    return before


def opens_like(row: PromptFormat, derived: str) -> bool:
    """Whether a row's template is what a tokenizer derives, a system turn and the first word's space aside.

    Some templates open with a system turn of their own (Llama 3.1 the date, Qwen2.5 its name); the row leaves it out,
    so the user's header has to end the derived text, and a begin-of-sequence token has to begin it.
    """
    derived = derived.rstrip(" ")
    begin = re.match(r"<\|begin_of_text\|>|<bos>|<s>", row.pre_query)
    opening = begin.group() if begin else ""
    return derived.startswith(opening) and derived.endswith(row.pre_query.removeprefix(opening))


@dataclass(frozen=True)
class TemplateCheck:
    """A row of FAMILIES beside the tokenizer of a model that it is to be used with."""

    key: str
    derived: str  # what the tokenizer's chat template writes before a user's first word
    missing_stops: tuple[str, ...]  # stop tokens of the row that the tokenizer does not have
    banned: tuple[str, ...]  # of the row's banned first texts, those that are one token here

    @property
    def fits(self) -> bool:
        """Whether the model can be asked by the row."""
        return opens_like(FAMILIES[self.key], self.derived) and not self.missing_stops


def check_template(key: str, tokenizer: "PreTrainedTokenizerBase") -> TemplateCheck:
    """The row `key` beside a tokenizer; ValueError where there is no such row."""
    row, known = family(key), tokenizer.get_vocab()
    return TemplateCheck(
        key=key,
        derived=pre_query_of_template(tokenizer),  # pyright: ignore[reportArgumentType]
        missing_stops=tuple(token for token in row.stop if token not in known),
        banned=tuple(t for t in row.banned_first if len(tokenizer.encode(t, add_special_tokens=False)) == 1),
    )
