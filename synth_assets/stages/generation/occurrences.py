"""Count earlier occurrences of row keys, in eight bytes a key."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


class Occurrences:
    """Count keys that arrive in chunks.

    Distinct keys are stored in sorted arrays, each at least twice as long as the next, so that a lookup searches few
    arrays and a key is merged only a few times.
    """

    def __init__(self) -> None:
        """Start without any key."""
        self._runs: list[Keys] = []
        self._again: dict[int, int] = {}  # occurrences of keys with more than one

    def before(self, keys: Sequence[int]) -> list[int]:
        """Return the number of earlier occurrences of each key, in earlier chunks and in this one."""
        key_array = np.array(keys, np.uint64)
        seen = np.zeros(key_array.size, bool)
        for run in self._runs:
            positions = np.minimum(np.searchsorted(run, key_array), run.size - 1)
            seen |= run[positions] == key_array
        in_chunk: Counter[int] = Counter()
        counts = []
        for key, seen_before in zip(keys, seen.tolist(), strict=True):
            counts.append(self._again.get(key, int(seen_before)) + in_chunk[key])
            in_chunk[key] += 1
        totals = dict(zip(keys, (count + 1 for count in counts), strict=True))  # the last count of a key stays
        self._again.update({key: total for key, total in totals.items() if total > 1})
        self._merge(np.unique(key_array[~seen]))
        return counts

    def _merge(self, run: Keys) -> None:
        while self._runs and self._runs[-1].size < 2 * run.size:
            run = np.union1d(self._runs.pop(), run)
        if run.size:
            self._runs.append(run)
