"""How much of a text says again what it said before: Gopher's shares (Rae et al. 2021, arXiv 2112.11446, table A1).

Most n-grams of most texts occur once. A table of one slot per hash finds those that may occur again, and only they are
compared; a 5-gram is looked at only where its first and its last 3-gram occur again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synth_assets.stages.filtering.features import SIDES, Features, Floats, Side
from synth_assets.text.words import Hashes, Integers, TokenHashes, ngrams, sequences

TEXT_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: keeps equal n-grams of different texts apart
SLOTS_PER_KEY = 4  # about a fifth of the keys that occur once share a slot
WORDS_AT_ONCE = 1 << 14  # the tables stay in the processor's cache
SHORT, LONG = 3, 5
ASKS_FOR_VERSE = (
    r"(?i)\b(?:songs?|lyrics|raps?|jingles?|poems?|ballads?|chants?|hymns?|anthems?|verses?|carols?|lullab\w+)\b"
)


@dataclass(frozen=True)
class Shares:
    """Gopher's three shares of each text, shape (texts,), 0..1."""

    top_3gram: Floats
    duplicate_5gram: Floats
    duplicate_line: Floats


def top_3gram_share(rows: Features) -> Floats:
    """The larger share of both sides: letters of all occurrences of the most frequent 3-gram."""
    return _larger(rows, lambda shares: shares.top_3gram)


def duplicate_5gram_share(rows: Features) -> Floats:
    """The larger share of both sides: letters within a 5-gram that occurred before in the text."""
    return _larger(rows, lambda shares: shares.duplicate_5gram)


def duplicate_line_share(rows: Features) -> Floats:
    """The larger share of both sides: letters in lines that occurred before; NaN where verse is asked for.

    A refrain is meant to be said again; the shares of n-grams still bound how often.
    """
    share = _larger(rows, lambda shares: shares.duplicate_line)
    return np.where(rows.contains("instruction", ASKS_FOR_VERSE, share > 0), np.nan, share)


def _larger(rows: Features, share: Callable[[Shares], Floats]) -> Floats:
    """NaN where neither side has enough words to be measured."""
    measured = [
        np.where(rows.word_counts(side) >= rows.spec.repetition_min_words, share(rows.shared(_shares, side)), np.nan)
        for side in SIDES
    ]
    return np.fmax(*measured)


def _shares(rows: Features, side: Side) -> Shares:
    """The shares of the texts that have enough words; 0 for the others."""
    parts = [_shares_of(part, rows.spec.repetition_min_words) for part in rows.words(side).parts(WORDS_AT_ONCE)]
    return Shares(*(np.concatenate([np.zeros(0), *column]) for column in zip(*parts, strict=True)))


def _shares_of(words: TokenHashes, min_words: int) -> tuple[Floats, Floats, Floats]:
    if words.counts().max(initial=0) < min_words:
        return np.zeros(words.texts), np.zeros(words.texts), np.zeros(words.texts)
    keys, first = ngrams(words, SHORT)
    keys += words.text[first].astype(np.uint64) * TEXT_FACTOR
    again = occur_again(keys)
    letters = np.maximum(words.letters(), 1).astype(np.float64)
    return (
        np.minimum(_said_by_one_ngram(words, keys[again], first[again]) / letters, 1.0),
        _said_before(words, first[again]) / letters,
        _said_in_lines_before(words) / letters,
    )


def occur_again(keys: Hashes) -> Integers:
    """The places of all keys, well-mixed hashes, that occur more than once, in order."""
    bits = (SLOTS_PER_KEY * keys.size).bit_length()
    slots, places = (keys >> np.uint64(64 - bits)).view(np.int64), np.arange(keys.size)
    latest, crowded = np.empty(1 << bits, np.int64), np.zeros(1 << bits, bool)
    latest[slots] = places
    crowded[slots[latest[slots] != places]] = True
    places = np.flatnonzero(crowded[slots])
    _, kind, counts = np.unique(keys[places], return_inverse=True, return_counts=True)
    return places[counts[kind] > 1]


def _said_by_one_ngram(words: TokenHashes, keys: Hashes, first: Integers) -> Floats:
    """Letters of all occurrences of the 3-gram that says most, of those that occur again; shape (texts,)."""
    _, example, counts = np.unique(keys, return_index=True, return_counts=True)
    at = first[example]
    letters = sum((words.sizes[at + offset] for offset in range(SHORT)), np.zeros(at.size))
    most = np.zeros(words.texts)
    np.maximum.at(most, words.text[at], letters * counts)
    return most


def _said_before(words: TokenHashes, repeated: Integers) -> Floats:
    """Letters within 5-grams that occurred before; `repeated` holds the first words of the 3-grams that occur again."""
    known = np.zeros(words.hashes.size + LONG, bool)
    known[repeated] = True
    first = repeated[known[repeated + LONG - SHORT]]
    first = first[words.text[first] == words.text[np.minimum(first + LONG - 1, words.text.size - 1)]]
    keys = sequences(words.hashes, first, first + LONG) + words.text[first].astype(np.uint64) * TEXT_FACTOR
    order = np.argsort(keys, kind="stable")
    again = first[order[1:][keys[order][1:] == keys[order][:-1]]]
    covered = np.unique(again[:, None] + np.arange(LONG))
    return np.bincount(words.text[covered], weights=words.sizes[covered], minlength=words.texts).astype(np.float64)


def _said_in_lines_before(words: TokenHashes) -> Floats:
    """Letters in lines that occurred before, by their words."""
    ends = np.append(words.lines[1:], words.hashes.size)
    text = words.text[words.lines]
    keys = sequences(words.hashes, words.lines, ends) + text.astype(np.uint64) * TEXT_FACTOR
    order = np.argsort(keys, kind="stable")
    again = order[1:][keys[order][1:] == keys[order][:-1]]
    before = np.concatenate([[0], np.cumsum(words.sizes)])
    letters = (before[ends] - before[words.lines])[again]
    return np.bincount(text[again], weights=letters, minlength=words.texts).astype(np.float64)
