"""Loader of registered adapters for MLflow: `mlflow.pyfunc.load_model` and `mlflow models serve`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.hardware import deployed
from resources.inference import Inference
from synth_assets.llm.protocols import Sampling, TextGenerator
from synth_assets.registry.flavour import DEFAULTS, Flavour, read_base
from synth_assets.schemas.records import ModelRecord

if TYPE_CHECKING:
    import pandas as pd


class ServedModel:
    """A base model with an adapter, as MLflow calls it."""

    def __init__(self, generator: TextGenerator) -> None:
        """Answer with `generator`."""
        self.generator = generator

    def predict(self, model_input: "pd.DataFrame", params: Mapping[str, Any] | None = None) -> list[str]:
        """Answer each value of the column `prompt` as one user turn.

        Args:
            model_input: table with the column `prompt`.
            params: max_tokens, temperature (0 is greedy), top_p and seed; the defaults are in the model's signature.
        """
        options = {**DEFAULTS, **(params or {})}
        prompts = [
            self.generator.encode_chat([{"role": "user", "content": str(text)}]) for text in model_input["prompt"]
        ]
        sampling = Sampling(float(options["temperature"]), float(options["top_p"]), int(options["max_tokens"]))
        seeds = [int(options["seed"]) + row for row in range(len(prompts))]
        return [completion.text for completion in self.generator.generate(prompts, seeds, sampling)]


def flavour_of(inference: Inference, base: ModelRecord) -> Flavour:
    """Return the flavour of adapters on this base model."""
    return Flavour(__name__, base, lambda folder: inference.tokenizer(base).save_pretrained(str(folder)))


def _load_pyfunc(path: str) -> ServedModel:
    """Load a registered version from its downloaded files, on the hardware tier in SYNTH_TIER (default: detected).

    Raises:
        ModelFilesError: the base model is not available at its location, or has changed.
    """
    folder = Path(path)
    inference = Inference(hardware=deployed(os.environ.get("SYNTH_TIER", "auto")))
    return ServedModel(inference.load_generator(read_base(folder), folder))
