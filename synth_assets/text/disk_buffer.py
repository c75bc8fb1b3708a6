"""A growing array of 64-bit numbers on disk, so that memory does not grow with the texts."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from synth_assets.text.words import Hashes


class DiskBuffer:
    """An append-only array of 64-bit numbers in a temporary file, deleted when closed."""

    def __init__(self, folder: Path | None = None) -> None:
        """Create the unnamed file in `folder`, or in the system's temporary folder."""
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self.size = 0

    def append(self, values: Hashes) -> None:
        """Append values."""
        rest = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += values.size

    def read(self, spans: Iterable[tuple[int, int]], total: int) -> Hashes:
        """Return the values of several spans (start, end), concatenated; `total` is their number."""
        values = np.empty(total, np.uint64)
        view = values.view(np.uint8).data
        position, number = 0, self._file.fileno()
        for start, end in spans:
            stop = position + 8 * (end - start)
            offset = 8 * start
            while position < stop:
                count = os.preadv(number, [view[position:stop]], offset)
                if not count:
                    raise EOFError(f"expected at least {end} numbers in the buffer, got fewer")
                position, offset = position + count, offset + count
        return values

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
