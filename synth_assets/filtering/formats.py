"""Texts that are cut off, torn or carry tokens of a chat template."""

import numpy as np

from synth_assets.filtering.features import Features, Flags, Floats, Side

CONTROL_MARK = (
    r"<\|[A-Za-z0-9_ -]{1,40}\|>|<\x{ff5c}[^\x{ff5c}\n]{1,40}\x{ff5c}>|</?s>|\[/?INST\]|<</?SYS>>"
    r"|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|<unused\d+>|<extra_id_\d+>"
    r"|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|(?m:^(?:assistant|user|system)$)|(?m:^#{2,3} (?:Instruction|Response|Input):)"
)
"""Of Llama 2 to 4, Mistral, Qwen, Gemma, Phi, DeepSeek, T5 and Alpaca; and a role's name alone in its line, which
is what stays of a header when a decoder drops special tokens."""

PLACEHOLDER = r"(?i)^\s*<?\(?(?:no ?(?:input|output)|empty|n/a|none|null|nan|\[?insert[^\]\n]*\]?)\)?>?[.!]?\s*$"
HANGING_WORDS = (
    r"(?i:\b(?:an?|the|of|to|in|on|at|by|for|from|with|and|or|but|if|is|are|was|were|be|that|which|as|than|we|your|my|its"
    r"|their|this|these|because|when|where|while|so|it's|i'm|we'll|into|about|between|both|each|let's|let))\s*\z"
)
HANGING_SIGN = r"(?:[,;(\[{=^\\&]-?| [+*/-]|##? ?\**|\\[A-Za-z]+\{?|\bStep ?\d*:?|(?m:^\s*(?:[-*•]|\d+\.))|\*\*)\s*\z"
SENTENCE_END = r"""[.!?:;)\]}"'`*|>$%~_/-]\s*\z|[^\x00-\x7F]\s*\z|\bhttps?://\S+\s*\z"""
LONG_WORDS = 80  # a shorter text may end without a full stop: titles, names, lists, commands
LAST_LINE_WORDS = r"(?m:^(?:\S+[^\S\n]+){4,}\S+)\s*\z"
MAY_END_OPEN = (
    r"(?i)\b(?:complete|continue|finish|fill|next|ending|predict)\b"
    r"|(?m:^\W*(?:is|are|was|do|does|did|can|what|which|who|when|where|why|how)\b[^\n.]*)\s*\z"
    r"|(?m:^.*\b[A-E]\) .*)\s*\z"
)
LIST_LINE = r"(?m:^\s*(?:[-*•>|#]|\d+[.)]|[A-Za-z][.)])\s.*)\s*\z"
TEX_COMMAND = r"\\(?:frac|sqrt|boxed|text|mathrm|mathbf|left|binom|overline)\b"


def control_marks_asked(rows: Features) -> Floats:
    """How many control tokens the instruction and the turns before it hold."""
    return rows.tasks().str.count_matches(CONTROL_MARK).to_numpy().astype(np.float64)


def finished_early(rows: Features, side: Side) -> Floats:
    """1 where generation of a side ended because of its length."""
    return (rows.rows[f"{side}_finish_reason"] == "length").fill_null(value=False).to_numpy().astype(np.float64)


def looks_cut_off(rows: Features, side: Side) -> Floats:
    """1 where a text whose finish reason is unknown stops in the middle of something; NaN where it is known."""
    hanging = rows.contains(side, HANGING_SIGN) | (rows.contains(side, HANGING_WORDS) & ~_may_hang(rows, side))
    unended = (rows.word_counts(side) >= LONG_WORDS) & ~rows.contains(side, SENTENCE_END)
    midway = unended & rows.contains(side, LAST_LINE_WORDS) & ~rows.contains(side, LIST_LINE)
    if side == "instruction":
        open_end = rows.contains(side, MAY_END_OPEN)
        hanging, midway = hanging & ~open_end, midway & ~open_end
    enough = rows.word_counts(side) >= (2 if side == "response" else 12)
    known = rows.rows[f"{side}_finish_reason"].is_not_null().to_numpy()
    return np.where(known, np.nan, ((hanging & enough) | midway | unbalanced_mathematics(rows, side).astype(bool)))


def unbalanced_fences(rows: Features) -> Floats:
    """1 where a code fence of the response is never closed."""
    return rows.matches("response", r"(?m)^\s*```") % 2


def unbalanced_mathematics(rows: Features, side: Side) -> Floats:
    """1 where a formula or an environment of TeX is opened and not closed."""
    return rows.shared(_torn_mathematics, side)


def _torn_mathematics(rows: Features, side: Side) -> Floats:
    torn = np.zeros(len(rows))
    places = np.flatnonzero(rows.holds(side, "\\") | rows.holds(side, "[asy]"))
    texts = rows.text(side).gather(places)

    def differs(opening: str, closing: str) -> Flags:
        return (texts.str.count_matches(opening) != texts.str.count_matches(closing)).to_numpy()

    def has(pattern: str) -> Flags:
        return texts.str.contains(pattern).to_numpy()

    if places.size:
        open_part = differs(r"\\begin\{", r"\\end\{") | differs(r"\[asy\]", r"\[/asy\]")
        open_part |= differs(r"\\\[(?:\s|[A-Za-z\\(])", r"\\\]") & has(r"(?m)^\s*\\\[")
        torn[places] = open_part | (has(TEX_COMMAND) & differs(r"\{", r"\}"))
    return torn


def _may_hang(rows: Features, side: Side) -> Flags:
    """A very short answer may be a word such as "the"."""
    return rows.word_counts(side) < 6
