"""A store of computed vectors by text, in a SQLite file that several processes may use at once."""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synth_assets.storage.errors import StorageError

KEYS_AT_ONCE = 500  # below SQLite's limit of variables in a statement
WAIT_S = 120.0  # for another process that writes
TABLE = "CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"


class VectorCache:
    """int16 vectors of one model by the hash of their text."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`; it is created at the first read."""
        self.path = path

    def read(self, texts: Sequence[str]) -> dict[str, NDArray[np.int16]]:
        """Return the stored vectors of the texts that have one.

        Raises:
            StorageError: the file is damaged; names the remedy.
        """
        by_key = {_key(text): text for text in texts}
        keys, vectors = [*by_key], {}
        with self._connection() as connection:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[start : start + KEYS_AT_ONCE]
                marks = ", ".join("?" * len(some))
                query = f"SELECT text, vector FROM vectors WHERE text IN ({marks})"  # noqa: S608 - question marks only
                for key, vector in connection.execute(query, some):
                    vectors[by_key[key]] = np.frombuffer(vector, np.int16)
        return vectors

    def write(self, vectors: Mapping[str, NDArray[np.int16]]) -> None:
        """Store vectors; one that another process has stored meanwhile stays. Raises StorageError like `read`."""
        rows = [(_key(text), np.ascontiguousarray(vector, np.int16).tobytes()) for text, vector in vectors.items()]
        with self._connection() as connection, connection:
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=WAIT_S)) as connection:
                connection.execute(TABLE)
                yield connection
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"{self.path} cannot be used ({error}): delete it; its vectors are made again"
            ) from error


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
