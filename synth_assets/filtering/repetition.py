"""How much of a text says again what it said before: Gopher's shares (Rae et al. 2021, arXiv 2112.11446, table A1)."""

import numpy as np
import polars as pl

from synth_assets.filtering.features import SIDES, Features, Floats, Side
from synth_assets.text import Words, ngrams

# A sortable number: 20 bits for the text (a chunk has fewer than 2**20), 32 of the n-gram's hash, 12 for its letters.
TEXT_SHIFT, HASH_SHIFT, LETTER_BITS = np.uint64(44), np.uint64(32), np.uint64(12)
LETTERS = 4096


def top_3gram_share(rows: Features) -> Floats:
    """The larger share of both sides: letters of all occurrences of the most frequent 3-gram."""
    return np.fmax(*(_measured(rows, side, _top_ngram_share(rows.words(side), 3)) for side in SIDES))


def duplicate_5gram_share(rows: Features) -> Floats:
    """The larger share of both sides: letters within a 5-gram that occurred before in the text."""
    return np.fmax(*(_measured(rows, side, _duplicate_ngram_share(rows.words(side), 5)) for side in SIDES))


def duplicate_line_share(rows: Features) -> Floats:
    """The larger share of both sides: characters in lines that occurred before in the text."""
    return np.fmax(*(_measured(rows, side, _duplicate_lines(rows.text(side))) for side in SIDES))


def _measured(rows: Features, side: Side, shares: Floats) -> Floats:
    return np.where(rows.word_counts(side) >= rows.spec.repetition_min_words, shares, np.nan)


def _letters(words: Words) -> Floats:
    return np.maximum(np.bincount(words.text, weights=words.sizes, minlength=words.texts), 1.0)


def _top_ngram_share(words: Words, n: int) -> Floats:
    """Sorts one number per n-gram, made of its text, its hash and its letters, so that equal ones lie side by side."""
    hashes, first = ngrams(words, n)
    before = np.concatenate([[0], np.cumsum(words.sizes)])
    letters = np.minimum(before[first + n] - before[first], LETTERS - 1).astype(np.uint64)
    keys = (words.text[first].astype(np.uint64) << TEXT_SHIFT) | (hashes >> HASH_SHIFT << LETTER_BITS) | letters
    keys.sort()
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if keys.size else np.zeros(0, np.int64)
    counts = np.diff(starts, append=keys.size)
    starts, counts = starts[counts > 1], counts[counts > 1]
    shares = np.zeros(words.texts)
    said = (keys[starts] & np.uint64(LETTERS - 1)).astype(np.int64) * counts
    np.maximum.at(shares, (keys[starts] >> TEXT_SHIFT).astype(np.int64), said)
    return np.minimum(shares / _letters(words), 1.0)


def _duplicate_ngram_share(words: Words, n: int) -> Floats:
    hashes, first = ngrams(words, n)
    keys = (words.text[first].astype(np.uint64) << TEXT_SHIFT) | (hashes >> np.uint64(20))
    ordered = np.sort(keys)
    concerned = np.zeros(words.texts, bool)
    concerned[(ordered[1:][ordered[1:] == ordered[:-1]] >> TEXT_SHIFT).astype(np.int64)] = True
    chosen = concerned[words.text[first]]
    keys, first = keys[chosen], first[chosen]
    order = np.argsort(keys, kind="stable")
    again = np.zeros(keys.size, bool)
    again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    change = np.zeros(words.hashes.size + 1, np.int64)
    np.add.at(change, first[again], 1)
    np.add.at(change, first[again] + n, -1)
    covered = np.cumsum(change[:-1]) > 0
    return np.bincount(words.text, weights=words.sizes * covered, minlength=words.texts) / _letters(words)


def _duplicate_lines(texts: pl.Series) -> Floats:
    lines = (
        pl.DataFrame({"text": np.arange(len(texts)), "line": texts.str.split("\n")})
        .explode("line")
        .with_columns(pl.col("line").str.strip_chars())
    )
    size = pl.col("line").str.len_chars()
    total = lines.group_by("text").agg(size.sum().alias("all"))
    once = lines.unique(["text", "line"]).group_by("text").agg(size.sum().alias("once"))
    both = total.join(once, on="text").sort("text")
    return (1 - both["once"] / both["all"].clip(1)).to_numpy()
