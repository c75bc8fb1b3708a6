"""Sets of word hashes to look others up in: function words, obscenities, the 8-grams of benchmarks."""

import numpy as np
from numpy.typing import NDArray

from synth_assets.text.words import Hashes, hash_words

NGRAM_WORDS = 8  # of benchmarks: PaLM (Chowdhery et al. 2022, arXiv 2204.02311, section 8), Tulu 3 (arXiv 2411.15124)
BOILERPLATE_ITEMS = 3  # an 8-gram of more items than this is their template or a shared passage


def hash_lexicon(words: str) -> Hashes:
    """The sorted hashes of the words of a text, for membership tests."""
    return np.unique(hash_words([words]).hashes)


class Lexicon:
    """A set of hashes to look others up in; a table over their top bits settles most of them."""

    def __init__(self, hashes: Hashes) -> None:
        """Take hashes, sorted and without repetitions."""
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
        """Which hashes are in it."""
        found = self._used[(hashes >> self._shift).view(np.int64)]
        places = np.flatnonzero(found)
        wanted = hashes[places]
        at = self._start[(wanted >> self._coarse).view(np.int64)]
        same = np.zeros(at.size, np.bool_)
        for step in range(self._longest):
            same |= self._hashes[np.minimum(at + step, self._hashes.size - 1)] == wanted
        found[places] = same
        return found


def contained(hashes: Hashes, lexicon: Hashes) -> NDArray[np.bool_]:
    """Which hashes are in a lexicon, sorted and without repetitions."""
    return Lexicon(lexicon).has(hashes)
