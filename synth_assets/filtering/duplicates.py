"""Near-duplicates: MinHash finds candidates, the exact Jaccard similarity of their word shingles decides.

One permutation of the hash space in SLOTS bins gives the signature (Li, Owen and Zhang 2012, arXiv 1208.1259);
empty bins borrow from later ones (Shrivastava and Li 2014, arXiv 1406.4784). Rows that agree in a band of the signature
are candidates. Signatures are kept as band hashes and shingles on disk, so memory grows by some 200 bytes a row.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from synth_assets.text import Hashes, Integers, Words, hash_words, mix, shingles

SHINGLE_WORDS = 5
SLOTS = 128
EMPTY = np.uint32(0xFFFFFFFF)
MISS_RATE = 0.002  # of pairs exactly at the threshold; pairs above it are missed far more rarely
BUCKET_ROWS = 128  # a row is compared with this many first rows of its bucket
PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Pairs:
    """Texts that are alike: their numbers, first below second, and their Jaccard similarity, all of shape (pairs,)."""

    first: Integers
    second: Integers
    similarity: NDArray[np.float64]


def band_rows(similarity: float) -> int:
    """The most signature slots per band of which a pair at this similarity still shares one but for MISS_RATE."""
    for rows in (8, 7, 6, 5, 4, 3, 2):
        if (1 - similarity**rows) ** (SLOTS // rows) <= MISS_RATE:
            return rows
    return 1


def signatures(values: Hashes, text: Integers, texts: int) -> NDArray[np.uint32]:
    """The one-permutation MinHash of each text's set of shingles, shape (texts, SLOTS); all EMPTY without shingles."""
    spread = mix(values)
    slot = (spread >> np.uint64(57)).astype(np.int64)
    signature = np.full(texts * SLOTS, EMPTY, np.uint32)
    np.minimum.at(signature, text * SLOTS + slot, spread.astype(np.uint32))
    signature = signature.reshape(texts, SLOTS)
    sparse = np.flatnonzero((signature == EMPTY).any(axis=1) & (signature != EMPTY).any(axis=1))
    dense = signature[sparse]
    for step in range(1, SLOTS):
        holes = dense == EMPTY
        if not holes.any():
            break
        borrowed = np.roll(signature[sparse], -step, axis=1)
        taken = holes & (borrowed != EMPTY)
        dense[taken] = borrowed[taken] + np.uint32(step * 0x9E3779B1 & 0xFFFFFFFF)
    signature[sparse] = dense
    return signature


class NearDuplicates:
    """Collects texts in any number of chunks, then names the pairs of them that are alike; use as a context manager."""

    def __init__(self, similarity: float) -> None:
        """Look for pairs whose Jaccard similarity is at least `similarity`, above 0 and at most 1."""
        if not 0 < similarity <= 1:
            raise ValueError(f"a similarity is above 0 and at most 1, not {similarity}")
        self.similarity = similarity
        self._rows_per_band = band_rows(similarity)
        self._bands: list[Hashes] = []
        self._sizes: list[Integers] = []
        self._store = tempfile.TemporaryFile(prefix="shingles-")  # noqa: SIM115

    def __enter__(self) -> Self:
        """The collector itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the shingles' disk space back."""
        self._store.close()

    def add(self, texts: Sequence[str]) -> None:
        """Append texts; their positions go on from those before."""
        self.add_words(hash_words(texts))

    def add_words(self, words: Words) -> None:
        """Append texts whose words are already hashed."""
        values, text = shingles(words, SHINGLE_WORDS)
        self._sizes.append(np.bincount(text, minlength=words.texts))
        self._store.write(values.tobytes())
        self._bands.append(self._band_hashes(signatures(values, text, words.texts)))

    def pairs(self, rank: Integers | None = None) -> Pairs:
        """All pairs found, each once, sorted by first and second.

        Args:
            rank: (texts,) the number of each text in the result, -1 for texts to leave out; as they came by default.
        """
        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        rank = np.arange(sizes.size) if rank is None else rank
        place = np.argsort(rank, kind="stable")[np.count_nonzero(rank < 0) :]
        self._store.flush()
        candidates = self._candidates(np.where(sizes > 0, rank, -1))
        chunks = (candidates[start : start + PAIRS_AT_ONCE] for start in range(0, len(candidates), PAIRS_AT_ONCE))
        parts = [self._confirm(chunk, place, offsets) for chunk in chunks]
        if not parts:
            return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _band_hashes(self, signature: NDArray[np.uint32]) -> Hashes:
        bands = SLOTS // self._rows_per_band
        hashes = np.empty((signature.shape[0], bands), np.uint64)
        for band in range(bands):
            value = np.full(signature.shape[0], band + 1, np.uint64)
            for slot in range(band * self._rows_per_band, (band + 1) * self._rows_per_band):
                value = mix(value * np.uint64(0x9E3779B97F4A7C15) + signature[:, slot])
            hashes[:, band] = value
        return hashes

    def _candidates(self, rank: Integers) -> Integers:
        """Pairs of ranks that share a band, as (pairs, 2), first below second, each once and in order."""
        chosen = np.argsort(rank, kind="stable")[np.count_nonzero(rank < 0) :]
        total = np.uint64(rank.max(initial=0) + 1)
        found = np.zeros(0, np.uint64)
        for band in range(SLOTS // self._rows_per_band):
            hashes = np.concatenate([np.zeros(0, np.uint64), *(part[:, band] for part in self._bands)])[chosen]
            order = np.argsort(hashes, kind="stable")
            ranks = rank[chosen][order].astype(np.uint64)
            fresh = [first * total + second for first, second in _bucket_pairs(hashes[order], ranks)]
            found = np.unique(np.concatenate([found, *fresh]))
        return np.stack([found // total, found % total], axis=1).astype(np.int64)

    def _confirm(
        self, candidates: Integers, place: Integers, offsets: Integers
    ) -> tuple[Integers, Integers, NDArray[np.float64]]:
        ranks, index = np.unique(candidates, return_inverse=True)
        sets = [self._read(*offsets[row : row + 2]) for row in place[ranks]]
        similarity = np.array([_jaccard(sets[a], sets[b]) for a, b in index.reshape(candidates.shape)])
        alike = similarity >= self.similarity
        return candidates[alike, 0], candidates[alike, 1], similarity[alike]

    def _read(self, start: np.int64, end: np.int64) -> Hashes:
        self._store.seek(int(start) * 8)
        return np.unique(np.frombuffer(self._store.read(int(end - start) * 8), np.uint64))


def first_of_kind(pairs: Pairs, rows: int) -> tuple[Integers, NDArray[np.float64]]:
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


def components(pairs: Pairs, rows: int) -> Integers:
    """For each row the first row of its group, groups being connected by pairs."""
    parent = list(range(rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        a, b = root(first), root(second)
        parent[max(a, b)] = min(a, b)
    return np.array([root(row) for row in range(rows)], np.int64)


def _bucket_pairs(hashes: Hashes, rows: Hashes) -> Iterator[tuple[Hashes, Hashes]]:
    """Pairs within runs of equal hashes, as (first, second): each row with the first BUCKET_ROWS of its run."""
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if hashes.size else np.zeros(0, int)
    ends = np.concatenate([starts[1:], [hashes.size]])
    shared = ends - starts > 1
    starts, ends = starts[shared], ends[shared]
    for step in range(BUCKET_ROWS):
        open_runs = starts + step + 1 < ends
        if not open_runs.any():
            return
        starts, ends = starts[open_runs], ends[open_runs]
        sizes = ends - starts - step - 1
        leads = np.repeat(starts + step, sizes)
        followers = leads + 1 + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield rows[leads], rows[followers]


def _jaccard(first: Hashes, second: Hashes) -> float:
    shared = np.intersect1d(first, second, assume_unique=True).size
    return shared / (first.size + second.size - shared)
