"""Numbers kept on disk while rows go by, so that memory does not grow with the texts."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from synth_assets.text.words import Hashes


class DiskBuffer:
    """An array of 64-bit numbers on disk that grows at its end; gone when closed."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep the file, which has no name, in `folder`, or in the system's temporary folder."""
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self.size = 0

    def append(self, values: Hashes) -> None:
        """Write values at the end."""
        rest = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += values.size

    def read(self, spans: Iterable[tuple[int, int]], total: int) -> Hashes:
        """The values of several spans (start, end), one behind the other, `total` of them."""
        values = np.empty(total, np.uint64)
        room = values.view(np.uint8).data
        at, number = 0, self._file.fileno()
        for start, end in spans:
            wanted = at + 8 * (end - start)
            place = 8 * start
            while at < wanted:
                got = os.preadv(number, [room[at:wanted]], place)
                if not got:
                    raise EOFError(f"spilled numbers end before {end}")
                at, place = at + got, place + got
        return values

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
