from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from resources.embeddings import CachedEmbedder, Embeddings
from resources.storage import SynthHome
from synth_assets.llm.errors import ModelFilesError
from synth_assets.storage.vector_cache import VectorCache
from synth_assets.text.embeddings import Vectors


class Lengths:
    """Embeds a text as its length, and notes what it was asked for."""

    name = "lengths"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.seen += texts
        return np.array([[len(text)] for text in texts], np.int16)


def test_a_text_is_embedded_once(tmp_path: Path) -> None:
    model, cache = Lengths(), VectorCache(tmp_path / "lengths.sqlite")
    assert CachedEmbedder(lambda: model, cache, "lengths").embed(["aa", "b", "aa"]).tolist() == [[2], [1], [2]]
    again = CachedEmbedder(lambda: model, cache, "lengths")
    assert again.embed(["ccc", "b"]).tolist() == [[3], [1]]
    assert again.embed([]).shape == (0, 1)
    assert model.seen == ["aa", "b", "ccc"]


def test_a_model_is_loaded_only_for_a_new_text(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "lengths.sqlite")
    cache.write({"a": np.array([1], np.int16)})

    def load() -> Lengths:
        raise AssertionError("loaded")

    assert CachedEmbedder(load, cache, "lengths").embed(["a"]).tolist() == [[1]]


def test_without_a_name_the_layer_is_off(tmp_path: Path) -> None:
    assert Embeddings(home=SynthHome(folder=str(tmp_path))).embedder() is None


def test_a_name_that_cannot_be_used_gives_the_remedy(tmp_path: Path) -> None:
    home = SynthHome(folder=str(tmp_path))
    with pytest.raises(ValueError, match="SYNTH_EMBEDDER must be one of minilm, got 'smollm2'"):
        Embeddings(home=home, embedder_name="smollm2").embedder()
    with pytest.raises(ModelFilesError, match="minilm is not fetched: run `synth models fetch minilm`"):
        Embeddings(home=home, embedder_name="minilm").embedder()
