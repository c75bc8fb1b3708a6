"""MinHash signatures of shingle sets, and their bands for locality-sensitive hashing.

One permutation of the hash space in SLOTS bins gives the signature (Li, Owen and Zhang 2012, arXiv 1208.1259). Empty
bins borrow from later ones (Shrivastava and Li 2014, arXiv 1406.4784).
"""

import numpy as np
from numpy.typing import NDArray

from synth_assets.text.words import Hashes, Integers, mix

SLOTS = 128
SLOT_SHIFT = np.uint64(64 - 7)  # the top 7 bits are the slot index
EMPTY = np.uint32(0xFFFFFFFF)
MISS_RATE = 0.002  # of pairs exactly at the threshold; far lower above it
STEP = np.uint32(0x9E3779B1)  # distinguishes borrowed values by their distance
SPREAD = np.uint64(0x9E3779B97F4A7C15)


def band_rows(similarity: float) -> int:
    """Return the most signature slots per band at which a pair of this similarity is missed at most at MISS_RATE."""
    for rows in (8, 7, 6, 5, 4, 3, 2):
        if (1 - similarity**rows) ** (SLOTS // rows) <= MISS_RATE:
            return rows
    return 1


def signatures(values: Hashes, text: Integers, texts: int) -> NDArray[np.uint32]:
    """Return the one-permutation MinHash of each text's shingles, shape (texts, SLOTS); EMPTY without shingles."""
    spread = mix(values)
    slot = (spread >> SLOT_SHIFT).view(np.int64)
    slot += text * SLOTS
    signature = np.full(texts * SLOTS, EMPTY, np.uint32)
    np.minimum.at(signature, slot, spread.astype(np.uint32))
    signature = signature.reshape(texts, SLOTS)
    slots = np.arange(SLOTS, dtype=np.int32)
    filled = np.where(signature != EMPTY, slots, np.int32(2 * SLOTS))
    circle = np.concatenate([filled, filled + np.int32(SLOTS)], axis=1)
    lender = np.minimum.accumulate(circle[:, ::-1], axis=1)[:, : SLOTS - 1 : -1]
    step = (lender - slots).astype(np.uint32)
    dense = np.take_along_axis(signature, lender % SLOTS, axis=1) + step * STEP
    return np.where((signature == EMPTY).all(axis=1, keepdims=True), EMPTY, dense)


def band_hashes(signature: NDArray[np.uint32], rows: int) -> Hashes:
    """Return a hash of each band of `rows` slots, shape (bands, texts)."""
    bands = SLOTS // rows
    slots = signature[:, : bands * rows].reshape(-1, bands, rows).transpose(2, 1, 0)
    value = np.repeat(np.arange(1, bands + 1, dtype=np.uint64)[:, None], signature.shape[0], axis=1)
    for slot in slots:
        value = mix(value * SPREAD + slot)
    return value


def whole_hashes(values: Hashes, sizes: Integers) -> Hashes:
    """Return an order-independent hash of all shingles of each text, shape (texts,); `sizes` are their numbers."""
    total = np.zeros(sizes.size, np.uint64)
    nonempty = sizes > 0
    if values.size:
        total[nonempty] = np.add.reduceat(mix(values), (np.cumsum(sizes) - sizes)[nonempty])
    return mix(total)
