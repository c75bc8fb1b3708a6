"""Resource that embeds texts, if the deployment has an embedding model."""

import functools
from collections.abc import Callable, Sequence

import dagster as dg
import numpy as np

from resources.storage import SynthHome
from synth_assets.llm.sources.packages import PACKAGE, PACKAGED_MODELS, packaged_folder
from synth_assets.llm.text_embedder import load_sentence_encoder
from synth_assets.storage.manifests import folder_hash
from synth_assets.storage.vector_cache import VectorCache
from synth_assets.text.embeddings import TextEmbedder, Vectors

STORED_TEXTS = 1_024  # a killed run loses at most so many vectors


class Embeddings(dg.ConfigurableResource):
    """The embedding model of this deployment; without a name the semantic layer is off."""

    home: SynthHome
    embedder_name: str = ""

    def check(self) -> None:
        """Raise an error if the named model is not one for embeddings, or is not fetched; names the remedy."""
        if self.embedder_name:
            known = [name for name, row in PACKAGED_MODELS.items() if row.kind == "embedding"]
            if self.embedder_name not in known:
                raise ValueError(f"SYNTH_EMBEDDER must be one of {', '.join(known)}, got {self.embedder_name!r}")
            packaged_folder(PACKAGE + self.embedder_name)

    def embedder(self) -> TextEmbedder | None:
        """Return the embedder, which loads the model at the first text that it has no vector of; None if it is off.

        Raises:
            ValueError: no embedding model has this name.
            ModelFilesError: the model is not fetched; gives the command.
        """
        self.check()
        if not self.embedder_name:
            return None
        folder = packaged_folder(PACKAGE + self.embedder_name)
        revision = folder_hash(folder)
        name = f"{self.embedder_name}@{revision}"
        cache = VectorCache(self.home.vectors() / f"{self.embedder_name}-{revision}.sqlite")
        return CachedEmbedder(lambda: load_sentence_encoder(folder, name), cache, name)


class CachedEmbedder:
    """An embedder that computes the vector of a text once."""

    def __init__(self, load: Callable[[], TextEmbedder], cache: VectorCache, name: str) -> None:
        """Call `load` at the first text without a stored vector."""
        self.name, self._cache = name, cache
        self._loaded = functools.cache(load)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vector of each text, in order; zero for a text that is longer than the model reads."""
        if not texts:
            return np.zeros((0, 1), np.int16)
        stored = self._cache.read(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in stored]
        for start in range(0, len(missing), STORED_TEXTS):
            part = missing[start : start + STORED_TEXTS]
            fresh = dict(zip(part, self._loaded().embed(part), strict=True))
            self._cache.write(fresh)
            stored |= fresh
        return np.stack([stored[text] for text in texts])
