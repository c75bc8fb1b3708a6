from pathlib import Path

import numpy as np
import pytest

from synth_assets.storage import vector_cache
from synth_assets.storage.errors import StorageError
from synth_assets.storage.vector_cache import VectorCache


def test_vectors_are_read_by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "KEYS_AT_ONCE", 2)
    cache = VectorCache(tmp_path / "new" / "model.sqlite")
    assert cache.read(["a"]) == {}
    cache.write({text: np.array([ord(text), -1], np.int16) for text in "abc"})
    cache.write({"a": np.array([0, 0], np.int16)})  # as by another process: the stored one stays
    stored = VectorCache(cache.path).read(["c", "a", "b", "a", "missing"])
    assert {text: vector.tolist() for text, vector in stored.items()} == {"a": [97, -1], "b": [98, -1], "c": [99, -1]}


def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "model.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match=r"model\.sqlite cannot be used .*: delete it; its vectors are made again"):
        VectorCache(path).read(["a"])
