"""How often a key occurred before, for as many keys as a file has rows: eight bytes each."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


class Occurrences:
    """Counts keys that come in chunks.

    Distinct keys lie in sorted arrays of which each is at least twice as long as the next, so that a chunk is looked up
    in few of them and a key is merged a few times only.
    """

    def __init__(self) -> None:
        """Start without any key."""
        self._runs: list[Keys] = []
        self._again: dict[int, int] = {}  # how often a key occurred that did so more than once

    def before(self, keys: Sequence[int]) -> list[int]:
        """Return for each key how often it occurred before, in earlier chunks and in this one."""
        array = np.array(keys, np.uint64)
        seen = np.zeros(array.size, bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, array), run.size - 1)
            seen |= run[places] == array
        here: Counter[int] = Counter()
        counts = []
        for key, known in zip(keys, seen.tolist(), strict=True):
            counts.append(self._again.get(key, int(known)) + here[key])
            here[key] += 1
        totals = dict(zip(keys, (count + 1 for count in counts), strict=True))  # the last count of a key stays
        self._again.update({key: total for key, total in totals.items() if total > 1})
        self._merge(np.unique(array[~seen]))
        return counts

    def _merge(self, run: Keys) -> None:
        while self._runs and self._runs[-1].size < 2 * run.size:
            run = np.union1d(self._runs.pop(), run)
        if run.size:
            self._runs.append(run)
