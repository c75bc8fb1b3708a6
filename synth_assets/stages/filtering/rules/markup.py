"""Format rules: control tokens, unclosed code fences and formulas, generations that reached the length limit."""

import numpy as np

from synth_assets.stages.filtering.features import Features, Flags, Floats, Side, matching

CONTROL_MARK = (
    r"<\|[A-Za-z0-9_ -]{1,40}\|>|<\x{ff5c}[^\x{ff5c}\n]{1,40}\x{ff5c}>|</?s>|\[/?INST\]|<</?SYS>>"
    r"|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|<unused\d+>|<extra_id_\d+>"
    r"|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|(?m:^(?:assistant|user|system)$)|(?m:^#{2,3} (?:Instruction|Response|Input):)"
)
"""Control tokens of Llama 2 to 4, Mistral, Qwen, Gemma, Phi, DeepSeek, T5 and Alpaca, and a role name alone in a line:
the rest of a header whose special tokens a decoder dropped."""

PLACEHOLDER = r"(?i)^\s*<?\(?(?:no ?(?:input|output)|empty|n/a|none|null|nan|\[?insert[^\]\n]*\]?)\)?>?[.!]?\s*$"
PLACEHOLDER_WORDS = 12
TEX_COMMAND = r"\\(?:frac|sqrt|boxed|text|mathrm|mathbf|left|binom|overline)\b"


def instruction_control_marks(rows: Features) -> Floats:
    """Count the control tokens in the instruction and in earlier turns."""
    return rows.tasks().str.count_matches(CONTROL_MARK).to_numpy().astype(np.float64)


def stopped_by_length(rows: Features, side: Side) -> Floats:
    """Return 1 where the generation of a side reached the length limit."""
    return (rows.rows[f"{side}_finish_reason"] == "length").fill_null(value=False).to_numpy().astype(np.float64)


def unbalanced_fences(rows: Features) -> Floats:
    """Return 1 where a code fence of the response is not closed."""
    return rows.matches("response", r"(?m)^\s*```", rows.holds("response", "```")) % 2


def unbalanced_mathematics(rows: Features, side: Side) -> Floats:
    """Return 1 where a TeX formula or environment is not closed."""
    return rows.shared(_unclosed_mathematics, side)


def _unclosed_mathematics(rows: Features, side: Side) -> Floats:
    unclosed = np.zeros(len(rows))
    indices = np.flatnonzero(rows.holds(side, "\\") | rows.holds(side, "[asy]"))
    texts = rows.text(side).gather(indices)

    def differs(opening: str, closing: str) -> Flags:
        return (texts.str.count_matches(opening) != texts.str.count_matches(closing)).to_numpy()

    if indices.size:
        open_part = differs(r"\\begin\{", r"\\end\{") | differs(r"\[asy\]", r"\[/asy\]")
        open_part |= differs(r"\\\[(?:\s|[A-Za-z\\(])", r"\\\]") & matching(texts, r"(?m)^\s*\\\[")
        unclosed[indices] = open_part | (matching(texts, TEX_COMMAND) & differs(r"\{", r"\}"))
    return unclosed
