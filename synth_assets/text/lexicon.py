"""Membership tests on sets of word hashes: function words, obscenities, the 8-grams of benchmarks."""

import numpy as np
from numpy.typing import NDArray

from synth_assets.text.words import Hashes, hash_words

NGRAM_WORDS = 8  # as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, section 8), Tulu 3 (arXiv 2411.15124)
BOILERPLATE_ITEMS = 3  # an 8-gram of more items is a template or a shared passage


def hash_lexicon(words: str) -> Hashes:
    """Return the sorted hashes of the words of a text."""
    return np.unique(hash_words([words]).hashes)


class Lexicon:
    """A set of hashes; a table over their top bits settles most lookups."""

    def __init__(self, hashes: Hashes) -> None:
        """Take sorted hashes without duplicates."""
        bits = max(16, (16 * hashes.size).bit_length())
        self._hashes, self._shift = hashes, np.uint64(64 - bits)
        self._used = np.zeros(1 << bits, np.bool_)
        self._used[(hashes >> self._shift).view(np.int64)] = True
        coarse = max(16, hashes.size.bit_length())
        self._coarse, self._start = np.uint64(64 - coarse), np.zeros(1 << coarse, np.int32)
        runs = (hashes >> self._coarse).view(np.int64)
        first = np.flatnonzero(np.diff(runs, prepend=-1))
        self._start[runs[first]] = first
        self._longest = int(np.diff(first, append=runs.size).max(initial=0))

    def has(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Return for each hash whether it is in the set."""
        present = self._used[(hashes >> self._shift).view(np.int64)]
        indices = np.flatnonzero(present)
        candidates = hashes[indices]
        start = self._start[(candidates >> self._coarse).view(np.int64)]
        matches = np.zeros(start.size, np.bool_)
        for step in range(self._longest):
            matches |= self._hashes[np.minimum(start + step, self._hashes.size - 1)] == candidates
        present[indices] = matches
        return present


def contained(hashes: Hashes, lexicon: Hashes) -> NDArray[np.bool_]:
    """Return for each hash whether it is in a sorted lexicon without duplicates."""
    return Lexicon(lexicon).has(hashes)
