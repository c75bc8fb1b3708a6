"""What a model's description and the headers of its weights say about its architecture. Loads no weights."""

import functools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from synth_assets.llm.catalog import FUSED, SEPARATE, Model, ModelDimensions
from synth_assets.llm.errors import ModelFilesError, read_json
from synth_assets.llm.model_files import CONFIG, local_folder, split_repository
from synth_assets.llm.weight_files import INDEX, SINGLE, Tensor, tensors_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
"""What configurations call the longest sequence: most families, GPT-2, MPT, Bloom and older ones."""
NAMES = {  # of a field of Shape in config.json: that of most families, then that of GPT-2's kind
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "mlp": ("intermediate_size", "n_inner"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
}
ROUTERS = frozenset({"gate", "router"})  # choose experts; LoRA leaves them as they are


class Counted(NamedTuple):
    """A number of parameters and what it was read from."""

    count: int
    source: Literal["weights", "config"]


def described_folder(location: str) -> Path | None:
    """Return the folder with a model's config.json on this machine; None where it was never fetched."""
    try:
        folder = local_folder(location)
        if folder is None:
            folder = _cached(location)
    except ModelFilesError:
        return None
    return folder if folder and (folder / CONFIG).is_file() else None


def parameters_of(folder: Path) -> Counted | None:
    """Return the number of parameters, from the weights' headers or else the shapes of config.json; None if neither."""
    if _has_weights(folder):
        return Counted(sum(math.prod(tensor.shape) for tensor in _tensors(folder)), "weights")
    network = _shapes_alone(folder)
    return Counted(network.num_parameters(), "config") if network is not None else None


def linear_modules(folder: Path) -> tuple[str, ...]:
    """Return the names of the linear layers of a model's blocks, all of which LoRA adapts; empty where unknown.

    Read from the weights' headers where they are there, else from a model without weights.
    """
    names = _matrices(_tensors(folder)) if _has_weights(folder) else _linear_layers(folder)
    for usual in (SEPARATE, FUSED):
        if set(names) == set(usual):
            return usual
    return tuple(names)


def context_tokens(folder: Path, location: str) -> int:
    """Return the longest sequence of a model; ModelFilesError where its configuration does not say it."""
    config = text_config(read_json(folder / CONFIG, location))
    told = (config[name] for name in CONTEXT_FIELDS if isinstance(config.get(name), int))
    if (length := next(told, None)) is not None:
        return length
    parsed = _parsed_config(folder)
    length = getattr(parsed.get_text_config(), CONTEXT_FIELDS[0], None) if parsed is not None else None
    if not isinstance(length, int):
        raise ModelFilesError(
            f"{location} does not say its context: expected one of {', '.join(CONTEXT_FIELDS)} in {CONFIG}"
        )
    return length


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that describes the language model."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def described_model(location: str, role: Literal["teacher", "base"]) -> Model | None:
    """Return a row like those of MODELS for a model that is here and not listed; None where its shape is unknown."""
    folder = described_folder(location)
    counted = parameters_of(folder) if folder else None
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
    found = {field: next((config[n] for n in names if n in config), None) for field, names in NAMES.items()}
    if found["mlp"] is None and isinstance(found["hidden"], int):
        found["mlp"] = 4 * found["hidden"]  # GPT-2's default
    sizes = {name: value for name, value in found.items() if isinstance(value, int)}
    if len(sizes) < len(NAMES):
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
    """Read the headers once for each state of the files."""
    return tuple(tensors_of(folder, str(folder)))


def _matrices(tensors: Iterable[Tensor]) -> list[str]:
    """Return the modules with a two-dimensional weight inside a numbered block, in the order of their first one."""
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

    network = _shapes_alone(folder)
    if network is None:
        return []
    paths = [name.split(".") for name, layer in network.named_modules() if isinstance(layer, nn.Linear | Conv1D)]
    inside = [path[-1] for path in paths if any(part.isdigit() for part in path[:-1])]
    return [name for name in dict.fromkeys(inside) if name not in ROUTERS]


@functools.lru_cache(maxsize=4)
def _shapes_alone(folder: Path) -> "PreTrainedModel | None":
    """Return the language model of a configuration without memory for its weights; None for other kinds of models."""
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
