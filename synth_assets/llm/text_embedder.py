"""Sentence embeddings with an encoder of the sentence-transformers family, run by Transformers alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synth_assets.llm.errors import read_json
from synth_assets.llm.loading import silence_transformers
from synth_assets.text.embeddings import Vectors, quantised

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WINDOW_FILE = "sentence_bert_config.json"
BATCH_ROWS = 32
TOKENIZED_ROWS = 1_000  # texts per tokenizer call


class SentenceEncoder:
    """Mean of the last hidden states over all tokens, as a unit vector (Reimers and Gurevych 2019, arXiv 1908.10084).

    A batch holds texts of one length in tokens, so that nothing is padded: a text's vector does not depend on the other
    texts. The model runs on the CPU in float32 on every tier.
    """

    def __init__(
        self, network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, name: str, window_tokens: int
    ) -> None:
        """Store the loaded model; a text of more than `window_tokens` tokens has no vector."""
        self.name, self.window_tokens = name, window_tokens
        self._network, self._tokenizer = network.eval(), tokenizer
        self._dimensions: int = network.config.hidden_size

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vector of each text, in order; zero for a text of more than `window_tokens` tokens."""
        import torch

        rows = [row for start in range(0, len(texts), TOKENIZED_ROWS) for row in self._tokens(texts, start)]
        means = np.zeros((len(rows), self._dimensions), np.float32)
        with torch.inference_mode():
            for batch in self._batches([len(row) for row in rows]):
                ids = torch.tensor([rows[index] for index in batch])
                means[batch] = self._network(input_ids=ids)[0].mean(dim=1).numpy()
        return quantised(means)

    def _tokens(self, texts: Sequence[str], start: int) -> list[list[int]]:
        options: Any = {"split_special_tokens": True, "truncation": False, "verbose": False}
        return self._tokenizer(list(texts[start : start + TOKENIZED_ROWS]), **options)["input_ids"]  # pyright: ignore[reportReturnType]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield indices of at most BATCH_ROWS texts of one length, the shortest first."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
            if batch and (lengths[index] != lengths[batch[0]] or len(batch) == BATCH_ROWS):
                yield batch
                batch = []
            if lengths[index] <= self.window_tokens:
                batch.append(index)
        if batch:
            yield batch


def load_sentence_encoder(folder: Path, name: str) -> SentenceEncoder:
    """Load the encoder of a fetched sentence-transformers folder: safetensors only, no remote code, no network."""
    silence_transformers()
    import torch
    from transformers import AutoModel, AutoTokenizer

    options: Any = {"local_files_only": True, "trust_remote_code": False}
    network = AutoModel.from_pretrained(folder, **options, use_safetensors=True, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    window = int(read_json(folder / WINDOW_FILE, name)["max_seq_length"])
    return SentenceEncoder(network, tokenizer, name=name, window_tokens=window)
