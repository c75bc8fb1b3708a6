"""Read a model's architecture from its config.json and its safetensors headers, without loading weights."""

import functools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from synth_assets.llm.catalog import FUSED, SEPARATE, Model, ModelDimensions
from synth_assets.llm.errors import ModelFilesError, read_json
from synth_assets.llm.model_files import CONFIG, local_folder, split_repository
from synth_assets.llm.weight_files import INDEX, SINGLE, Tensor, iter_tensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
"""Names of the context length in config.json: most families, GPT-2, MPT, Bloom and older ones."""
DIMENSION_FIELDS = {  # field of ModelDimensions -> names in config.json, most families first, then GPT-2
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "mlp": ("intermediate_size", "n_inner"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
}
ROUTERS = frozenset({"gate", "router"})  # mixture-of-experts routers, which LoRA does not adapt


class ParameterCount(NamedTuple):
    """A parameter count and its source."""

    count: int
    source: Literal["weights", "config"]


def local_config_folder(location: str) -> Path | None:
    """Return the local folder that holds a model's config.json, or None if it was never downloaded."""
    try:
        folder = local_folder(location)
        if folder is None:
            folder = _cached(location)
    except ModelFilesError:
        return None
    return folder if folder and (folder / CONFIG).is_file() else None


def count_parameters(folder: Path) -> ParameterCount | None:
    """Count the parameters of a model from its safetensors headers, else from config.json; None if neither works."""
    if _has_weights(folder):
        return ParameterCount(sum(math.prod(tensor.shape) for tensor in _tensors(folder)), "weights")
    network = _model_on_meta_device(folder)
    return ParameterCount(network.num_parameters(), "config") if network is not None else None


def linear_modules(folder: Path) -> tuple[str, ...]:
    """Return the names of the linear layers in a model's blocks, the default LoRA targets; empty if unknown.

    The names come from the safetensors headers, or from a model on the meta device if there are no weights.
    """
    names = _matrix_modules(_tensors(folder)) if _has_weights(folder) else _linear_layers(folder)
    for layout in (SEPARATE, FUSED):
        if set(names) == set(layout):
            return layout
    return tuple(names)


def context_tokens(folder: Path, location: str) -> int:
    """Return a model's context length in tokens. Raises ModelFilesError if its config.json does not name it."""
    config = text_config(read_json(folder / CONFIG, location))
    lengths = (config[name] for name in CONTEXT_FIELDS if isinstance(config.get(name), int))
    if (length := next(lengths, None)) is not None:
        return length
    parsed = _parsed_config(folder)
    length = getattr(parsed.get_text_config(), CONTEXT_FIELDS[0], None) if parsed is not None else None
    if not isinstance(length, int):
        raise ModelFilesError(
            f"{location} has no context length: expected one of {', '.join(CONTEXT_FIELDS)} in {CONFIG}"
        )
    return length


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a config.json (`text_config` in multimodal models)."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def model_from_folder(location: str, role: Literal["teacher", "base"]) -> Model | None:
    """Build a row like those of MODELS for a local model outside the catalog; None if its dimensions are unknown."""
    folder = local_config_folder(location)
    counted = count_parameters(folder) if folder else None
    if folder is None or counted is None:
        return None
    shape = _shape(text_config(read_json(folder / CONFIG, location)))
    targets = linear_modules(folder)
    if shape is None or not set(targets) <= shape.outputs().keys():
        return None
    return Model(
        repository=location,
        roles=(role,),
        family="",
        parameters=counted.count,
        shape=shape,
        context_tokens=context_tokens(folder, location),
        licence="not recorded",
        targets=targets,
    )


def _shape(config: Mapping[str, Any]) -> ModelDimensions | None:
    values = {field: next((config[n] for n in names if n in config), None) for field, names in DIMENSION_FIELDS.items()}
    if values["mlp"] is None and isinstance(values["hidden"], int):
        values["mlp"] = 4 * values["hidden"]  # GPT-2's default
    sizes = {name: value for name, value in values.items() if isinstance(value, int)}
    if len(sizes) < len(DIMENSION_FIELDS):
        return None
    return ModelDimensions(
        **sizes,
        key_value_heads=config.get("num_key_value_heads") or sizes["heads"],
        head=config.get("head_dim") or sizes["hidden"] // sizes["heads"],
        tied=bool(config.get("tie_word_embeddings", True)),
    )


def _cached(location: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    name, revision = split_repository(location)
    path = try_to_load_from_cache(name, CONFIG, revision=revision)
    return Path(path).parent if isinstance(path, str) else None


def _has_weights(folder: Path) -> bool:
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def _tensors(folder: Path) -> tuple[Tensor, ...]:
    stamps = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.safetensors*")))
    return _read_tensors(folder, stamps)


@functools.lru_cache(maxsize=8)
def _read_tensors(folder: Path, _stamps: tuple[tuple[str, int], ...]) -> tuple[Tensor, ...]:
    """Read the headers, cached by the files' modification times."""
    return tuple(iter_tensors(folder, str(folder)))


def _matrix_modules(tensors: Iterable[Tensor]) -> list[str]:
    """Return the modules with a two-dimensional weight inside a numbered block, in order of first appearance."""
    names: dict[str, None] = {}
    for tensor in tensors:
        *path, module, kind = ["", "", *tensor.name.split(".")]
        inside = any(part.isdigit() for part in path)
        if kind == "weight" and len(tensor.shape) == 2 and inside and not module.isdigit() and module not in ROUTERS:
            names[module] = None
    return list(names)


def _linear_layers(folder: Path) -> list[str]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    network = _model_on_meta_device(folder)
    if network is None:
        return []
    paths = [name.split(".") for name, layer in network.named_modules() if isinstance(layer, nn.Linear | Conv1D)]
    inside = [path[-1] for path in paths if any(part.isdigit() for part in path[:-1])]
    return [name for name in dict.fromkeys(inside) if name not in ROUTERS]


@functools.lru_cache(maxsize=4)
def _model_on_meta_device(folder: Path) -> "PreTrainedModel | None":
    """Build the causal language model of a config.json on the meta device; None for other kinds of models."""
    import torch
    from transformers import AutoModelForCausalLM

    config = _parsed_config(folder)
    if config is None:
        return None
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, NotImplementedError):
        return None


def _parsed_config(folder: Path) -> "PretrainedConfig | None":
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ValueError:
        return None
