"""Truncation rules for imported texts, whose finish reason is not known."""

import numpy as np
import polars as pl

from synth_assets.stages.filtering.features import Features, Flags, Floats, Side, matching
from synth_assets.stages.filtering.rules.instruction_cues import ENDS_WITH_A_REQUEST
from synth_assets.stages.filtering.rules.markup import unbalanced_mathematics
from synth_assets.text.words import Integers

SENTENCE_END = r"""[.!?:;)\]}"'`*|>$%~_/-]\s*\z|[^\x00-\x7F]\s*\z|\bhttps?://\S+\s*\z"""
HANGING_SIGN = r"(?:[,(\[{=^\\&]-?| [+*/-]|##? ?\**|\\[A-Za-z]+\{?|\bStep ?\d*:?|(?m:^\s*(?:[-*•]|\d+\.))|\*\*)\s*\z"
HANGING_WORDS = (
    r"(?i:\b(?:an?|the|of|to|for|from|with|and|or|but|if|which|as|than|we|your|my|its|their|because|while|it's|i'm|we'll"
    r"|between|let's|let|among|upon|towards?|until|since|such|during|would|should|could|must|cannot))\s*\z"
)
STRANDED_WORDS = (
    r"(?i:\b(?:in|on|at|by|is|are|was|were|be|that|this|these|when|where|so|into|about|both|each|under|after|before|through"
    r"|against|without|within))\s*\z"
)
PROMISES = r":\s*\z"
LAST_LINE_WORDS = r"(?m:^(?:\S+[^\S\n]+){4,}\S+)\s*\z"
LAST_LINE_LONG = r"(?m:^(?:\S+[^\S\n]+){14,}\S+)\s*\z"
BREAKS_OFF = r"[.?!]\s+[^.?!\n]*[A-Za-z0-9,]\s*\z"
LIST_LINE = r"(?m:^\s*(?:[-*•>|#]|\d+[.)]|[A-Za-z][.)])\s.*)\s*\z"
LONG_LIST_LINE = r"(?m:^\s*(?:[-*•]|\d+[.)])\s+(?:\S+[^\S\n]+){11,}\S+)\s*\z"
ENDED_LIST_LINE = r"(?m:^\s*(?:[-*•]|\d+[.)])\s.*[.!?:]$)"
MAY_END_OPEN = (
    r"(?i)\b(?:complete|continue|finish|fill|next|ending|predict)\b"
    r"|(?m:^\W*(?:is|are|was|do|does|did|can|what|which|who|when|where|why|how)\b[^\n.?!]*)\s*\z"
    r"|(?m:^.*\b[A-E]\) .*)\s*\z"
)
STEPS = r"(?im)^#+ *\**step \d"
CONCLUDES = r"(?i)\b(?:answer|therefore|thus|hence|boxed|conclu\w+|finally|solution is)\b"
TAIL_CHARACTERS = 1000
LONG_WORDS = 80  # a shorter text may end without a full stop: titles, names, lists, commands
HANGING_MIN_WORDS = 6  # a very short answer may be a word such as "the"
STRANDED_MIN_WORDS = 30  # "It depends on which country you are in" is a complete answer
MIN_WORDS = {"instruction": 12, "response": 2}  # a shorter text may end with any sign


def looks_cut_off(rows: Features, side: Side) -> Floats:
    """Return 1 where a text of unknown finish reason looks truncated; NaN where the reason is known."""
    known = rows.rows[f"{side}_finish_reason"].is_not_null().to_numpy()
    cut = unbalanced_mathematics(rows, side).astype(bool)
    tails = rows.text(side).str.tail(TAIL_CHARACTERS)
    indices = np.flatnonzero(
        ~known & (~matching(tails, SENTENCE_END) | matching(tails, HANGING_SIGN) | matching(tails, PROMISES))
    )
    if indices.size:
        ends_midway = _instruction_cut_off if side == "instruction" else _response_cut_off
        cut[indices] |= ends_midway(
            rows.text(side).gather(indices), tails.gather(indices), rows.word_counts(side)[indices]
        )
    if side == "response":
        cut |= _unfinished_steps(rows)
    return np.where(known, np.nan, cut)


def _hangs(tails: pl.Series, words: Integers, least: int) -> Flags:
    """Return where the last sign or word needs a continuation."""
    word = matching(tails, HANGING_WORDS) & (words >= HANGING_MIN_WORDS)
    word |= matching(tails, STRANDED_WORDS) & (words >= STRANDED_MIN_WORDS)
    return (matching(tails, HANGING_SIGN) | word) & (words >= least)


def _stops_in_prose(texts: pl.Series, tails: pl.Series, words: Integers) -> Flags:
    """Return where a long text has no full stop at its end and does not end with a list of such lines."""
    prose = ~matching(tails, SENTENCE_END) & (words >= LONG_WORDS) & matching(tails, LAST_LINE_WORDS)
    in_list = matching(tails, LIST_LINE) & ~(matching(tails, LONG_LIST_LINE) & matching(texts, ENDED_LIST_LINE))
    return prose & ~in_list


def _instruction_cut_off(texts: pl.Series, tails: pl.Series, words: Integers) -> Flags:
    """Return where an instruction looks truncated, unless it asks the model to continue its text."""
    broken = ~matching(tails, SENTENCE_END) & matching(tails, LAST_LINE_LONG) & matching(tails, BREAKS_OFF)
    broken &= ~matching(tails, ENDS_WITH_A_REQUEST)
    hanging = _hangs(tails, words, MIN_WORDS["instruction"])
    return (hanging | broken | _stops_in_prose(texts, tails, words)) & ~matching(texts, MAY_END_OPEN)


def _response_cut_off(texts: pl.Series, tails: pl.Series, words: Integers) -> Flags:
    hanging = _hangs(tails, words, MIN_WORDS["response"]) | matching(tails, PROMISES)
    return hanging | _stops_in_prose(texts, tails, words)


def _unfinished_steps(rows: Features) -> Flags:
    """Return where a calculation under step headings has no conclusion."""
    texts = rows.text("response")
    unfinished = np.zeros(len(rows), bool)
    indices = np.flatnonzero(rows.holds("response", "#"))
    steps = texts.gather(indices)
    unfinished[indices] = matching(steps, STEPS) & matching(steps, r"[=$]") & ~matching(steps, CONCLUDES)
    return unfinished
