"""Whether a text whose finish reason nobody stored, an imported one, stops in the middle of something."""

import numpy as np
import polars as pl

from synth_assets.stages.filtering.features import Features, Flags, Floats, Side, found
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
HANGING_LEAST = 6  # words; a very short answer may be a word such as "the"
STRANDED_LEAST = 30  # words; "It depends on which country you are in" is a whole answer
LEAST_WORDS = {"instruction": 12, "response": 2}  # a shorter text may end with any sign


def looks_cut_off(rows: Features, side: Side) -> Floats:
    """1 where a text of unknown finish reason stops in the middle of something; NaN where the reason is known."""
    known = rows.rows[f"{side}_finish_reason"].is_not_null().to_numpy()
    cut = unbalanced_mathematics(rows, side).astype(bool)
    tails = rows.text(side).str.tail(TAIL_CHARACTERS)
    places = np.flatnonzero(
        ~known & (~found(tails, SENTENCE_END) | found(tails, HANGING_SIGN) | found(tails, PROMISES))
    )
    if places.size:
        ends_midway = _asked_midway if side == "instruction" else _answered_midway
        cut[places] |= ends_midway(rows.text(side).gather(places), tails.gather(places), rows.word_counts(side)[places])
    if side == "response":
        cut |= _unfinished_steps(rows)
    return np.where(known, np.nan, cut)


def _hangs(tails: pl.Series, words: Integers, least: int) -> Flags:
    """Where the last sign or word wants another one."""
    word = found(tails, HANGING_WORDS) & (words >= HANGING_LEAST)
    word |= found(tails, STRANDED_WORDS) & (words >= STRANDED_LEAST)
    return (found(tails, HANGING_SIGN) | word) & (words >= least)


def _stops_in_prose(texts: pl.Series, tails: pl.Series, words: Integers) -> Flags:
    """Where a long text lacks its full stop, and not because it ends with a list of such lines."""
    prose = ~found(tails, SENTENCE_END) & (words >= LONG_WORDS) & found(tails, LAST_LINE_WORDS)
    in_list = found(tails, LIST_LINE) & ~(found(tails, LONG_LIST_LINE) & found(texts, ENDED_LIST_LINE))
    return prose & ~in_list


def _asked_midway(texts: pl.Series, tails: pl.Series, words: Integers) -> Flags:
    """An instruction may end with what the model is to go on with."""
    broken = ~found(tails, SENTENCE_END) & found(tails, LAST_LINE_LONG) & found(tails, BREAKS_OFF)
    broken &= ~found(tails, ENDS_WITH_A_REQUEST)
    hanging = _hangs(tails, words, LEAST_WORDS["instruction"])
    return (hanging | broken | _stops_in_prose(texts, tails, words)) & ~found(texts, MAY_END_OPEN)


def _answered_midway(texts: pl.Series, tails: pl.Series, words: Integers) -> Flags:
    hanging = _hangs(tails, words, LEAST_WORDS["response"]) | found(tails, PROMISES)
    return hanging | _stops_in_prose(texts, tails, words)


def _unfinished_steps(rows: Features) -> Flags:
    """Where a calculation under headings of steps never comes to its answer."""
    texts = rows.text("response")
    unfinished = np.zeros(len(rows), bool)
    places = np.flatnonzero(rows.holds("response", "#"))
    steps = texts.gather(places)
    unfinished[places] = found(steps, STEPS) & found(steps, r"[=$]") & ~found(steps, CONCLUDES)
    return unfinished
