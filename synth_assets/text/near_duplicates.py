"""Near-duplicates: MinHash finds candidates, the exact Jaccard similarity of their word shingles decides.

Rows that agree in a band of their signatures are candidates. Band hashes and shingles lie on disk, so memory grows by
some tens of bytes a row, and by eight for each candidate pair.
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
BLOCK_TEXTS = 128  # the arrays of a block stay in the processor's cache
BUCKET_PAIRS = 4096  # rows of a bucket of n are compared with its first BUCKET_PAIRS / n rows
BUCKET_LEADS = 8  # or with these, where that is fewer: a bucket costs no more than its rows times a constant
SHINGLES_AT_ONCE = 1 << 17  # as well
PAIRS_AT_ONCE = 1 << 15  # both rows of a pair, and the pair, are numbered with 16 bits
TAG = np.uint64(48)


@dataclass(frozen=True)
class DuplicatePairs:
    """Texts that are alike: their numbers, first below second, and their Jaccard similarity, all of shape (pairs,)."""

    first: Integers
    second: Integers
    similarity: NDArray[np.float64]


@dataclass(frozen=True)
class Repeats:
    """Rows that repeat an earlier one, and that one, of shape (repeats,); similarity 1 where they are exactly alike."""

    row: Integers
    original: Integers
    similarity: NDArray[np.float64]
    exact: NDArray[np.bool_]


class NearDuplicates:
    """Collects texts in any number of chunks, then names the pairs of them that are alike; use as a context manager."""

    def __init__(self, similarity: float, folder: Path | None = None) -> None:
        """Look for pairs whose Jaccard similarity is at least `similarity`, above 0 and at most 1.

        Args:
            similarity: of the sets of shingles.
            folder: for temporary files, about 10 bytes for each byte of text; the system's where None.
        """
        if not 0 < similarity <= 1:
            raise ValueError(f"a similarity is above 0 and at most 1, not {similarity}")
        self.similarity = similarity
        self._band_rows = band_rows(similarity)
        self._bands_of_a_text = SLOTS // self._band_rows + 1  # the last is of all shingles: copies are always found
        self._sizes: list[Integers] = []
        self._shingles, self._bands = DiskBuffer(folder), DiskBuffer(folder)

    def __enter__(self) -> Self:
        """The collector itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the disk space back."""
        self._shingles.close()
        self._bands.close()

    def add(self, texts: Sequence[str]) -> None:
        """Append texts; their positions go on from those before."""
        for start in range(0, len(texts), BLOCK_TEXTS):
            self._add_block(hash_words(texts[start : start + BLOCK_TEXTS]))

    def add_words(self, words: TokenHashes) -> None:
        """Append texts whose words are known."""
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
        """All pairs found, each once, sorted by first and second.

        Args:
            rank: (texts,) the number of each text in the result, -1 for texts to leave out; as they came by default.
        """
        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        rank = np.arange(sizes.size) if rank is None else rank
        place = np.argsort(rank, kind="stable")[np.count_nonzero(rank < 0) :]
        candidates = self.candidates(np.where(sizes > 0, rank, -1))
        parts = [self._confirm(chunk, place, offsets) for chunk in _portions(candidates, sizes[place])]
        none = DuplicatePairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        columns = ((part.first, part.second, part.similarity) for part in (none, *parts))
        return DuplicatePairs(*map(np.concatenate, zip(*columns, strict=True)))

    def candidates(self, rank: Integers) -> Integers:
        """Pairs of ranks that share a band, as (pairs, 2), first below second, each once and in order."""
        chosen = rank >= 0
        numbers = rank[chosen].astype(np.uint64)
        total = np.uint64(rank.max(initial=0) + 1)
        bits = np.uint64(int(total).bit_length())
        found = np.zeros(0, np.uint64)
        for band in range(self._bands_of_a_text):
            hashes = self._band(band)[chosen]
            keys = np.sort(hashes >> bits << bits | numbers)
            fresh = [first * total + second for first, second in _bucket_pairs(keys, bits)]
            if fresh:
                found = _distinct(np.sort(np.concatenate([found, *fresh])))
        return np.stack([found // total, found % total], axis=1).astype(np.int64)

    def _band(self, band: int) -> Hashes:
        """The hashes of one band of all texts."""
        counts = [sizes.size for sizes in self._sizes]
        starts = np.cumsum([0, *counts]) * self._bands_of_a_text
        spans = [(start + band * n, start + (band + 1) * n) for start, n in zip(starts.tolist(), counts, strict=False)]
        return self._bands.read(spans, sum(counts))

    def _confirm(self, candidates: Integers, place: Integers, offsets: Integers) -> DuplicatePairs:
        ranks, index = np.unique(candidates, return_inverse=True)
        rows = place[ranks]
        sizes = offsets[rows + 1] - offsets[rows]
        spans = zip(offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True)
        values = self._shingles.read(spans, int(sizes.sum()))
        similarity = jaccard(values, sizes, index.reshape(candidates.shape))
        alike = similarity >= self.similarity
        return DuplicatePairs(candidates[alike, 0], candidates[alike, 1], similarity[alike])


def jaccard(values: Hashes, sizes: Integers, pairs: Integers) -> NDArray[np.float64]:
    """The Jaccard similarity of pairs of sets.

    Args:
        values: the members of all sets, repetitions allowed, set by set; told apart by their upper 48 bits.
        sizes: (sets,) how many values each set has, repetitions included.
        pairs: (pairs, 2) the numbers of two sets; at most 2**16 pairs and sets.
    """
    members = np.repeat(np.arange(sizes.size, dtype=np.uint64) << TAG, sizes) | values >> np.uint64(16)
    members = _distinct(np.sort(members))
    distinct = np.bincount((members >> TAG).view(np.int64), minlength=sizes.size)
    starts = np.cumsum(distinct) - distinct
    chosen = pairs.ravel()
    counts = distinct[chosen]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    low = np.uint64((1 << 48) - 1)
    both = members[np.repeat(starts[chosen], counts) + within] & low
    both |= np.repeat(np.arange(chosen.size, dtype=np.uint64) >> np.uint64(1) << TAG, counts)
    both = np.sort(both)
    twice = both[1:][both[1:] == both[:-1]]
    shared = np.bincount((twice >> TAG).view(np.int64), minlength=len(pairs))
    return shared / (counts.reshape(-1, 2).sum(axis=1) - shared)


def hash_tasks(tasks: Sequence[str]) -> Hashes:
    """One hash for each text, equal where texts differ in case, spaces and typography only."""
    return np.array([xxhash.xxh3_64_intdigest(normalised_bytes(task)) for task in tasks], np.uint64)


def repeated(order: Integers, tasks: Hashes, near: NearDuplicates) -> Repeats:
    """The rows that repeat one before them in `order`, exactly or nearly, and the kept row that each repeats.

    Args:
        order: (rows,) the numbers of the rows, the row to keep first.
        tasks: (rows,) a hash of each row's text, by number.
        near: the same texts, by number.
    """
    _, first, kind = np.unique(tasks[order], return_index=True, return_inverse=True)
    copies = np.setdiff1d(np.arange(order.size), first, assume_unique=True)
    distinct = order[np.sort(first)]
    rank = np.full(order.size, -1)
    rank[distinct] = np.arange(distinct.size)
    leader, similarity = first_of_kind(near.pairs(rank), distinct.size)
    alike = np.flatnonzero(leader != np.arange(leader.size))
    return Repeats(
        row=np.concatenate([order[copies], distinct[alike]]),
        original=np.concatenate([order[first[kind[copies]]], distinct[leader[alike]]]),
        similarity=np.concatenate([np.ones(copies.size), similarity[alike]]),
        exact=np.arange(copies.size + alike.size) < copies.size,
    )


def first_of_kind(pairs: DuplicatePairs, rows: int) -> tuple[Integers, NDArray[np.float64]]:
    """For each row the kept row that it repeats, or itself where it is kept; and how similar the two are.

    Rows are taken in order; one is dropped where it is like a row that was kept before it. So no two kept rows are
    alike, and a row is never dropped for the sake of a dropped one.
    """
    leader, likeness = np.arange(rows), np.ones(rows)
    order = np.lexsort((pairs.first, pairs.second))
    columns = (column[order].tolist() for column in (pairs.first, pairs.second, pairs.similarity))
    for first, second, similarity in zip(*columns, strict=True):
        if leader[first] == first and leader[second] == second:
            leader[second], likeness[second] = first, similarity
    return leader, likeness


def components(pairs: DuplicatePairs, rows: int) -> Integers:
    """For each row the first row of its group, groups being connected by pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(pairs.first.size, bool), (pairs.first, pairs.second)), shape=(rows, rows))
    _, group = connected_components(edges, directed=False)
    _, first = np.unique(group, return_index=True)
    return first[group]


def _bucket_pairs(keys: Hashes, bits: np.uint64) -> Iterator[tuple[Hashes, Hashes]]:
    """Pairs of rows within runs of keys that differ in their lowest `bits` alone, which number the rows, ascending.

    Every row of a run is paired with the first rows of it: all of a short run, BUCKET_LEADS of a long one.
    """
    bucket = keys >> bits
    starts = np.flatnonzero(np.concatenate([[True], bucket[1:] != bucket[:-1]])) if keys.size else np.zeros(0, int)
    ends = np.concatenate([starts[1:], [keys.size]])
    shared = ends - starts > 1
    starts, ends = starts[shared], ends[shared]
    leads = np.maximum(BUCKET_PAIRS // np.maximum(ends - starts, 1), BUCKET_LEADS)
    rows = keys & ((np.uint64(1) << bits) - np.uint64(1))
    for step in range(BUCKET_PAIRS):
        going = (starts + step + 1 < ends) & (step < leads)
        if not going.any():
            return
        starts, ends, leads = starts[going], ends[going], leads[going]
        sizes = ends - starts - step - 1
        lead = np.repeat(starts + step, sizes)
        follower = lead + 1 + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield rows[lead], rows[follower]


def _portions(candidates: Integers, sizes: Integers) -> Iterator[Integers]:
    """The candidates in portions of at most PAIRS_AT_ONCE pairs and SHINGLES_AT_ONCE shingles, or of one pair."""
    weights = np.cumsum(sizes[candidates].sum(axis=1)) if len(candidates) else np.zeros(0, np.int64)
    start, before = 0, 0
    while start < len(candidates):
        limit = int(np.searchsorted(weights, before + SHINGLES_AT_ONCE, side="right"))
        end = min(max(limit, start + 1), start + PAIRS_AT_ONCE)
        yield candidates[start:end]
        start, before = end, int(weights[end - 1])


def _distinct(values: Hashes) -> Hashes:
    """Sorted values without repetitions."""
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if values.size else values
