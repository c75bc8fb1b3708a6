"""How much of a text says again what it said before: Gopher's shares (Rae et al. 2021, arXiv 2112.11446, table A1)."""

import numpy as np
import polars as pl

from synth_assets.filtering.features import SIDES, Features, Floats, Side
from synth_assets.text import Hashes, Integers, Words, ngrams

HASH_BITS = 44  # of an n-gram's hash beside 20 bits for its text; a chunk has fewer than 2**20 texts


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


def _keys(words: Words, n: int) -> tuple[Hashes, Integers]:
    """Each n-gram's text and hash in one sortable number, and its first word."""
    hashes, first = ngrams(words, n)
    text = words.text[first].astype(np.uint64)
    return (text << np.uint64(HASH_BITS)) | (hashes >> np.uint64(64 - HASH_BITS)), first


def _repeated(words: Words, n: int) -> tuple[Hashes, Integers]:
    """The n-grams, as `_keys`, of those texts in which any n-gram occurs twice; most texts have none."""
    keys, first = _keys(words, n)
    ordered = np.sort(keys)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    concerned = np.zeros(words.texts, bool)
    concerned[(again >> np.uint64(HASH_BITS)).astype(np.int64)] = True
    chosen = concerned[words.text[first]]
    return keys[chosen], first[chosen]


def _letters(words: Words) -> Floats:
    return np.maximum(np.bincount(words.text, weights=words.sizes, minlength=words.texts), 1.0)


def _top_ngram_share(words: Words, n: int) -> Floats:
    keys, first = _repeated(words, n)
    shares = np.zeros(words.texts)
    if not keys.size:
        return shares
    distinct, index, counts = np.unique(keys, return_index=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(words.sizes)])
    place = first[index]
    letters = (before[place + n] - before[place]) * np.where(counts > 1, counts, 0)
    np.maximum.at(shares, (distinct >> np.uint64(HASH_BITS)).astype(np.int64), letters)
    return np.minimum(shares / _letters(words), 1.0)


def _duplicate_ngram_share(words: Words, n: int) -> Floats:
    keys, first = _repeated(words, n)
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
