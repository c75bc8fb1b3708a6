"""Near-duplicate detection: MinHash finds candidates, exact Jaccard similarity of word shingles confirms them.

Rows that agree in a band of their signatures are candidates. Band hashes and shingles are on disk; memory grows by
tens of bytes per row and eight bytes per candidate pair.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from synth_assets.text.disk_buffer import DiskBuffer
from synth_assets.text.minhash import SLOTS, band_hashes, band_rows, signatures, whole_hashes
from synth_assets.text.words import Hashes, Integers, TokenHashes, hash_words, normalised_bytes, shingles

SHINGLE_WORDS = 5
BLOCK_TEXTS = 128  # arrays of a block fit the processor's cache
BUCKET_PAIRS = 4096  # rows of a bucket of n are compared with its first BUCKET_PAIRS / n rows
BUCKET_LEADS = 8  # minimum of these; bounds the cost of a bucket to a constant per row
SHINGLES_AT_ONCE = 1 << 17  # arrays fit the processor's cache
PAIRS_AT_ONCE = 1 << 15  # pairs and their rows have 16-bit numbers
TAG = np.uint64(48)


@dataclass(frozen=True)
class DuplicatePairs:
    """Pairs of similar texts: their numbers, first below second, and their Jaccard similarity, shape (pairs,)."""

    first: Integers
    second: Integers
    similarity: NDArray[np.float64]


@dataclass(frozen=True)
class Repeats:
    """Rows that repeat an earlier row, and that row, shape (repeats,); similarity is 1 for exact copies."""

    row: Integers
    original: Integers
    similarity: NDArray[np.float64]
    exact: NDArray[np.bool_]


class NearDuplicates:
    """Collect texts in chunks and find the similar pairs; use as a context manager."""

    def __init__(self, similarity: float, folder: Path | None = None) -> None:
        """Create an index for pairs with a Jaccard similarity of at least `similarity`.

        Args:
            similarity: threshold in (0, 1].
            folder: folder of temporary files, about 10 bytes per byte of text; None: the system's.
        """
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity must be in (0, 1], got {similarity}")
        self.similarity = similarity
        self._band_rows = band_rows(similarity)
        self._bands_of_a_text = SLOTS // self._band_rows + 1  # the last finds all exact copies
        self._sizes: list[Integers] = []
        self._shingles, self._bands = DiskBuffer(folder), DiskBuffer(folder)

    def __enter__(self) -> Self:
        """Return the index."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Delete the temporary files."""
        self._shingles.close()
        self._bands.close()

    def add(self, texts: Sequence[str]) -> None:
        """Append texts; numbering continues."""
        for start in range(0, len(texts), BLOCK_TEXTS):
            self._add_block(hash_words(texts[start : start + BLOCK_TEXTS]))

    def add_words(self, words: TokenHashes) -> None:
        """Append texts given as hashed words."""
        for start in range(0, words.texts, BLOCK_TEXTS):
            self._add_block(words.part(start, min(start + BLOCK_TEXTS, words.texts)))

    def _add_block(self, words: TokenHashes) -> None:
        values, text = shingles(words, SHINGLE_WORDS)
        sizes = np.bincount(text, minlength=words.texts)
        bands = band_hashes(signatures(values, text, words.texts), self._band_rows)
        self._sizes.append(sizes)
        self._shingles.append(values)
        self._bands.append(np.concatenate([bands, whole_hashes(values, sizes)[None]]))

    def pairs(self, rank: Integers | None = None) -> DuplicatePairs:
        """Return all similar pairs, each once, sorted by first and second.

        Args:
            rank: (texts,) number of each text in the result, -1 to exclude it; default: order of insertion.
        """
        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        rank = np.arange(sizes.size) if rank is None else rank
        position = np.argsort(rank, kind="stable")[np.count_nonzero(rank < 0) :]
        candidates = self.candidates(np.where(sizes > 0, rank, -1))
        parts = [self._confirm(chunk, position, offsets) for chunk in _portions(candidates, sizes[position])]
        none = DuplicatePairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        columns = ((part.first, part.second, part.similarity) for part in (none, *parts))
        return DuplicatePairs(*map(np.concatenate, zip(*columns, strict=True)))

    def candidates(self, rank: Integers) -> Integers:
        """Return pairs of ranks that share a band, shape (pairs, 2), first below second, sorted and unique."""
        included = rank >= 0
        numbers = rank[included].astype(np.uint64)
        total = np.uint64(rank.max(initial=0) + 1)
        bits = np.uint64(int(total).bit_length())
        pairs = np.zeros(0, np.uint64)
        for band in range(self._bands_of_a_text):
            hashes = self._band(band)[included]
            keys = np.sort(hashes >> bits << bits | numbers)
            band_pairs = [first * total + second for first, second in _bucket_pairs(keys, bits)]
            if band_pairs:
                pairs = _distinct(np.sort(np.concatenate([pairs, *band_pairs])))
        return np.stack([pairs // total, pairs % total], axis=1).astype(np.int64)

    def _band(self, band: int) -> Hashes:
        """Return the hashes of one band of all texts."""
        counts = [sizes.size for sizes in self._sizes]
        starts = np.cumsum([0, *counts]) * self._bands_of_a_text
        spans = [(start + band * n, start + (band + 1) * n) for start, n in zip(starts.tolist(), counts, strict=False)]
        return self._bands.read(spans, sum(counts))

    def _confirm(self, candidates: Integers, position: Integers, offsets: Integers) -> DuplicatePairs:
        ranks, index = np.unique(candidates, return_inverse=True)
        rows = position[ranks]
        sizes = offsets[rows + 1] - offsets[rows]
        spans = zip(offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True)
        values = self._shingles.read(spans, int(sizes.sum()))
        similarity = jaccard(values, sizes, index.reshape(candidates.shape))
        similar = similarity >= self.similarity
        return DuplicatePairs(candidates[similar, 0], candidates[similar, 1], similarity[similar])


def jaccard(values: Hashes, sizes: Integers, pairs: Integers) -> NDArray[np.float64]:
    """Compute the Jaccard similarity of pairs of sets.

    Args:
        values: members of all sets, set by set, duplicates allowed; compared by their upper 48 bits.
        sizes: (sets,) number of values per set, including duplicates.
        pairs: (pairs, 2) indices of two sets; at most 2**16 pairs and sets.
    """
    members = np.repeat(np.arange(sizes.size, dtype=np.uint64) << TAG, sizes) | values >> np.uint64(16)
    members = _distinct(np.sort(members))
    distinct = np.bincount((members >> TAG).view(np.int64), minlength=sizes.size)
    starts = np.cumsum(distinct) - distinct
    sets = pairs.ravel()
    counts = distinct[sets]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    low = np.uint64((1 << 48) - 1)
    combined = members[np.repeat(starts[sets], counts) + within] & low
    combined |= np.repeat(np.arange(sets.size, dtype=np.uint64) >> np.uint64(1) << TAG, counts)
    combined = np.sort(combined)
    duplicates = combined[1:][combined[1:] == combined[:-1]]
    shared = np.bincount((duplicates >> TAG).view(np.int64), minlength=len(pairs))
    return shared / (counts.reshape(-1, 2).sum(axis=1) - shared)


def hash_tasks(tasks: Sequence[str]) -> Hashes:
    """Return a hash of each text that ignores case, spaces and typography."""
    return np.array([xxhash.xxh3_64_intdigest(normalised_bytes(task)) for task in tasks], np.uint64)


def repeated(order: Integers, tasks: Hashes, near: NearDuplicates) -> Repeats:
    """Return the rows that repeat an earlier row in `order`, exactly or nearly, and the kept row of each.

    Args:
        order: (rows,) row numbers, those to keep first.
        tasks: (rows,) hash of each row's text, by number.
        near: the same texts, by number.
    """
    _, first, kind = np.unique(tasks[order], return_index=True, return_inverse=True)
    copies = np.setdiff1d(np.arange(order.size), first, assume_unique=True)
    distinct = order[np.sort(first)]
    rank = np.full(order.size, -1)
    rank[distinct] = np.arange(distinct.size)
    leader, similarity = first_of_kind(near.pairs(rank), distinct.size)
    similar = np.flatnonzero(leader != np.arange(leader.size))
    return Repeats(
        row=np.concatenate([order[copies], distinct[similar]]),
        original=np.concatenate([order[first[kind[copies]]], distinct[leader[similar]]]),
        similarity=np.concatenate([np.ones(copies.size), similarity[similar]]),
        exact=np.arange(copies.size + similar.size) < copies.size,
    )


def first_of_kind(pairs: DuplicatePairs, rows: int) -> tuple[Integers, NDArray[np.float64]]:
    """Return for each row the kept row that it repeats, or itself if it is kept; and their similarity.

    Rows are processed in order. A row is dropped if it is similar to a row kept before it. So no two kept rows are
    similar, and no row is dropped because of a dropped one.
    """
    leader, likeness = np.arange(rows), np.ones(rows)
    order = np.lexsort((pairs.first, pairs.second))
    columns = (column[order].tolist() for column in (pairs.first, pairs.second, pairs.similarity))
    for first, second, similarity in zip(*columns, strict=True):
        if leader[first] == first and leader[second] == second:
            leader[second], likeness[second] = first, similarity
    return leader, likeness


def components(pairs: DuplicatePairs, rows: int) -> Integers:
    """Return for each row the first row of its connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(pairs.first.size, bool), (pairs.first, pairs.second)), shape=(rows, rows))
    _, group = connected_components(edges, directed=False)
    _, first = np.unique(group, return_index=True)
    return first[group]


def _bucket_pairs(keys: Hashes, bits: np.uint64) -> Iterator[tuple[Hashes, Hashes]]:
    """Yield pairs of rows whose keys differ only in their lowest `bits`, which are the row number; keys ascend.

    Each row of a bucket is paired with its first rows: all of them in a small bucket, BUCKET_LEADS in a large one.
    """
    bucket = keys >> bits
    starts = np.flatnonzero(np.concatenate([[True], bucket[1:] != bucket[:-1]])) if keys.size else np.zeros(0, int)
    ends = np.concatenate([starts[1:], [keys.size]])
    shared = ends - starts > 1
    starts, ends = starts[shared], ends[shared]
    leads = np.maximum(BUCKET_PAIRS // np.maximum(ends - starts, 1), BUCKET_LEADS)
    rows = keys & ((np.uint64(1) << bits) - np.uint64(1))
    for step in range(BUCKET_PAIRS):
        active = (starts + step + 1 < ends) & (step < leads)
        if not active.any():
            return
        starts, ends, leads = starts[active], ends[active], leads[active]
        sizes = ends - starts - step - 1
        lead = np.repeat(starts + step, sizes)
        follower = lead + 1 + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield rows[lead], rows[follower]


def _portions(candidates: Integers, sizes: Integers) -> Iterator[Integers]:
    """Yield the candidates in portions of at most PAIRS_AT_ONCE pairs and SHINGLES_AT_ONCE shingles, or of one pair."""
    weights = np.cumsum(sizes[candidates].sum(axis=1)) if len(candidates) else np.zeros(0, np.int64)
    start, before = 0, 0
    while start < len(candidates):
        limit = int(np.searchsorted(weights, before + SHINGLES_AT_ONCE, side="right"))
        end = min(max(limit, start + 1), start + PAIRS_AT_ONCE)
        yield candidates[start:end]
        start, before = end, int(weights[end - 1])


def _distinct(values: Hashes) -> Hashes:
    """Remove duplicates from sorted values."""
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if values.size else values
