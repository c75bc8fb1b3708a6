"""Texts that are torn or carry tokens of a chat template."""

import numpy as np

from synth_assets.stages.filtering.features import Features, Flags, Floats, Side, found

CONTROL_MARK = (
    r"<\|[A-Za-z0-9_ -]{1,40}\|>|<\x{ff5c}[^\x{ff5c}\n]{1,40}\x{ff5c}>|</?s>|\[/?INST\]|<</?SYS>>"
    r"|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|<unused\d+>|<extra_id_\d+>"
    r"|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|(?m:^(?:assistant|user|system)$)|(?m:^#{2,3} (?:Instruction|Response|Input):)"
)
"""Of Llama 2 to 4, Mistral, Qwen, Gemma, Phi, DeepSeek, T5 and Alpaca; and a role's name alone in its line, which
is what stays of a header when a decoder drops special tokens."""

PLACEHOLDER = r"(?i)^\s*<?\(?(?:no ?(?:input|output)|empty|n/a|none|null|nan|\[?insert[^\]\n]*\]?)\)?>?[.!]?\s*$"
PLACEHOLDER_WORDS = 12
TEX_COMMAND = r"\\(?:frac|sqrt|boxed|text|mathrm|mathbf|left|binom|overline)\b"


def control_marks_asked(rows: Features) -> Floats:
    """How many control tokens the instruction and the turns before it hold."""
    return rows.tasks().str.count_matches(CONTROL_MARK).to_numpy().astype(np.float64)


def finished_early(rows: Features, side: Side) -> Floats:
    """1 where generation of a side ended because of its length."""
    return (rows.rows[f"{side}_finish_reason"] == "length").fill_null(value=False).to_numpy().astype(np.float64)


def unbalanced_fences(rows: Features) -> Floats:
    """1 where a code fence of the response is never closed."""
    return rows.matches("response", r"(?m)^\s*```", rows.holds("response", "```")) % 2


def unbalanced_mathematics(rows: Features, side: Side) -> Floats:
    """1 where a formula or an environment of TeX is opened and not closed."""
    return rows.shared(_torn_mathematics, side)


def _torn_mathematics(rows: Features, side: Side) -> Floats:
    torn = np.zeros(len(rows))
    places = np.flatnonzero(rows.holds(side, "\\") | rows.holds(side, "[asy]"))
    texts = rows.text(side).gather(places)

    def differs(opening: str, closing: str) -> Flags:
        return (texts.str.count_matches(opening) != texts.str.count_matches(closing)).to_numpy()

    if places.size:
        open_part = differs(r"\\begin\{", r"\\end\{") | differs(r"\[asy\]", r"\[/asy\]")
        open_part |= differs(r"\\\[(?:\s|[A-Za-z\\(])", r"\\\]") & found(texts, r"(?m)^\s*\\\[")
        torn[places] = open_part | (found(texts, TEX_COMMAND) & differs(r"\{", r"\}"))
    return torn
