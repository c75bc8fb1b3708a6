"""Repetition rules: Gopher's shares of repeated text (Rae et al. 2021, arXiv 2112.11446, table A1).

Most n-grams of most texts occur once. A table with one slot per hash finds the n-grams that may repeat, and only these
are compared; a 5-gram is considered only if its first and last 3-grams repeat.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synth_assets.stages.filtering.features import SIDES, Features, Floats, Side
from synth_assets.text.words import Hashes, Integers, TokenHashes, ngrams, sequences

TEXT_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: gives equal n-grams of different texts different keys
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
    """Return the larger share of both sides: letters of all occurrences of the most frequent 3-gram."""
    return _larger(rows, lambda shares: shares.top_3gram)


def duplicate_5gram_share(rows: Features) -> Floats:
    """Return the larger share of both sides: letters in 5-grams that occurred before in the text."""
    return _larger(rows, lambda shares: shares.duplicate_5gram)


def duplicate_line_share(rows: Features) -> Floats:
    """Return the larger share of both sides: letters in lines that occurred before; NaN if the task asks for verse.

    A refrain repeats by design; the n-gram shares still limit how often.
    """
    share = _larger(rows, lambda shares: shares.duplicate_line)
    return np.where(rows.contains("instruction", ASKS_FOR_VERSE, share > 0), np.nan, share)


def _larger(rows: Features, share: Callable[[Shares], Floats]) -> Floats:
    """Return the larger share of both sides; NaN where neither side has enough words."""
    measured = [
        np.where(rows.word_counts(side) >= rows.spec.repetition_min_words, share(rows.shared(_shares, side)), np.nan)
        for side in SIDES
    ]
    return np.fmax(*measured)


def _shares(rows: Features, side: Side) -> Shares:
    """Return the shares of the texts with enough words; 0 for the others."""
    parts = [_shares_of(part, rows.spec.repetition_min_words) for part in rows.words(side).parts(WORDS_AT_ONCE)]
    return Shares(*(np.concatenate([np.zeros(0), *column]) for column in zip(*parts, strict=True)))


def _shares_of(words: TokenHashes, min_words: int) -> tuple[Floats, Floats, Floats]:
    if words.counts().max(initial=0) < min_words:
        return np.zeros(words.texts), np.zeros(words.texts), np.zeros(words.texts)
    keys, first = ngrams(words, SHORT)
    keys += words.text[first].astype(np.uint64) * TEXT_FACTOR
    repeated = repeated_keys(keys)
    letters = np.maximum(words.letters(), 1).astype(np.float64)
    return (
        np.minimum(_letters_of_top_ngram(words, keys[repeated], first[repeated]) / letters, 1.0),
        _letters_in_repeated_ngrams(words, first[repeated]) / letters,
        _letters_in_repeated_lines(words) / letters,
    )


def repeated_keys(keys: Hashes) -> Integers:
    """Return the indices of all keys (uniform hashes) that occur more than once, in order."""
    bits = (SLOTS_PER_KEY * keys.size).bit_length()
    slots, indices = (keys >> np.uint64(64 - bits)).view(np.int64), np.arange(keys.size)
    latest, crowded = np.empty(1 << bits, np.int64), np.zeros(1 << bits, bool)
    latest[slots] = indices
    crowded[slots[latest[slots] != indices]] = True
    indices = np.flatnonzero(crowded[slots])
    _, kind, counts = np.unique(keys[indices], return_inverse=True, return_counts=True)
    return indices[counts[kind] > 1]


def _letters_of_top_ngram(words: TokenHashes, keys: Hashes, first: Integers) -> Floats:
    """Return the letters of all occurrences of the repeated 3-gram with most letters; shape (texts,)."""
    _, example, counts = np.unique(keys, return_index=True, return_counts=True)
    at = first[example]
    letters = sum((words.sizes[at + offset] for offset in range(SHORT)), np.zeros(at.size))
    most = np.zeros(words.texts)
    np.maximum.at(most, words.text[at], letters * counts)
    return most


def _letters_in_repeated_ngrams(words: TokenHashes, repeated: Integers) -> Floats:
    """Return the letters in 5-grams that occurred before; `repeated` holds the first words of repeated 3-grams."""
    is_repeated = np.zeros(words.hashes.size + LONG, bool)
    is_repeated[repeated] = True
    first = repeated[is_repeated[repeated + LONG - SHORT]]
    first = first[words.text[first] == words.text[np.minimum(first + LONG - 1, words.text.size - 1)]]
    keys = sequences(words.hashes, first, first + LONG) + words.text[first].astype(np.uint64) * TEXT_FACTOR
    order = np.argsort(keys, kind="stable")
    later = first[order[1:][keys[order][1:] == keys[order][:-1]]]
    covered = np.unique(later[:, None] + np.arange(LONG))
    return np.bincount(words.text[covered], weights=words.sizes[covered], minlength=words.texts).astype(np.float64)


def _letters_in_repeated_lines(words: TokenHashes) -> Floats:
    """Return the letters in lines whose words occurred before as a line."""
    ends = np.append(words.lines[1:], words.hashes.size)
    text = words.text[words.lines]
    keys = sequences(words.hashes, words.lines, ends) + text.astype(np.uint64) * TEXT_FACTOR
    order = np.argsort(keys, kind="stable")
    later = order[1:][keys[order][1:] == keys[order][:-1]]
    before = np.concatenate([[0], np.cumsum(words.sizes)])
    letters = (before[ends] - before[words.lines])[later]
    return np.bincount(text[later], weights=letters, minlength=words.texts).astype(np.float64)
