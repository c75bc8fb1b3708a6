"""Refuse a model's folder before anything is loaded from it: each file is whole, plausible, and inside the folder.

The same rules hold for a user's folder and for a snapshot of a hub. A message names the model, the file, and the field.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synth_assets.llm.errors import REMEDY, ModelFilesError, read_json
from synth_assets.llm.weight_files import INDEX, SINGLE
from synth_assets.storage.manifests import MANIFEST

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
ADAPTER_CONFIG = "adapter_config.json"

POSITIVE = (  # whole numbers above 0 wherever a configuration has them
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"),
    *("hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "vocab_size"),
    *("num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "intermediate_size", "n_inner"),
)
OPTIONAL = ("num_key_value_heads", "head_dim", "n_inner", "intermediate_size")  # null: the architecture's default
ABOVE_ZERO = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "rope_theta")
SHARES = ("attention_dropout", "hidden_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "dropout")
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
LARGEST = 2**31 - 1
IMPLEMENTATIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
REMOTE_KERNELS = ("mxfp4", "finegrained_fp8")  # quantisations whose code Transformers fetches from the hub
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
PLAIN = re.compile(r"[\w-][\w.-]*")


def check_links(folder: Path, location: str) -> None:
    """Refuse symbolic links that leave the folder; a hub cache's own links to its blobs are inside the cache."""
    home = folder.resolve()
    inside = [home]
    if home.parent.name == "snapshots":
        inside.append(home.parent.parent / "blobs")
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            continue
        target = path.resolve()
        if not any(target.is_relative_to(place) for place in inside):
            raise ModelFilesError(
                f"{location}: {path.relative_to(folder)} is a link to a file outside the folder; copy the file there"
            )
        if not target.exists():
            raise ModelFilesError(f"{location}: {path.relative_to(folder)} is a link to nothing: {REMEDY}")


def check_description_files(folder: Path, location: str) -> dict[str, Any]:
    """Return config.json after refusing damaged files, foreign code and impossible values in any of the descriptions.

    Raises:
        ModelFilesError: names the file, and the field with the value expected and found.
    """
    if not (folder / CONFIG).is_file():
        raise ModelFilesError(f"{location} has no {CONFIG}: it is no Transformers model")
    described = {path.name: read_json(path, location) for path in sorted(folder.glob("*.json"))}
    config = described[CONFIG]
    for name, content in described.items():
        if name not in (INDEX, TOKENIZER):
            _check_code(name, content, location)
    _check_implementations(config, location)
    check_values(config, location)
    tokenizer_config = described.get(TOKENIZER_CONFIG, {})
    _check_tokenizer_files(folder, tokenizer_config, location)
    if TOKENIZER in described:
        _check_tokenizer(described[TOKENIZER], config, location)
    return config


def check_architecture(folder: Path, location: str) -> None:
    """Refuse an architecture that the installed Transformers does not have; ModelFilesError names the field."""
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
    )

    kind = read_json(folder / CONFIG, location).get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING_NAMES:
        raise _wrong(location, "model_type", "an architecture of the installed Transformers", kind)


def check_values(config: Mapping[str, Any], location: str) -> None:
    """Refuse a configuration with a value that no model can have; ModelFilesError names the field."""
    for path, value in _leaves(config):
        if isinstance(value, float) and math.isnan(value):
            raise _wrong(location, path, "a number", value)
    for prefix, part in _parts(config):
        for name in POSITIVE:
            if name in part and not (part[name] is None and name in OPTIONAL):
                _check_size(location, prefix + name, part[name])
        for name in ABOVE_ZERO:
            if (value := part.get(name)) is not None and not _number(value, lambda v: 0 < v < math.inf):
                raise _wrong(location, prefix + name, "a number above 0", value)
        for name in SHARES:
            if (value := part.get(name)) is not None and not _number(value, lambda v: 0 <= v <= 1):
                raise _wrong(location, prefix + name, "a number from 0 to 1", value)
        _check_heads(location, prefix, part)
        _check_token_ids(location, prefix, part)


def _check_size(location: str, field: str, value: object) -> None:
    values = value if isinstance(value, list) and value else [value]  # some families give one for each layer
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v <= LARGEST for v in values):
        raise _wrong(location, field, "a whole number above 0", value)


def _check_heads(location: str, prefix: str, part: Mapping[str, Any]) -> None:
    hidden = part.get("hidden_size", part.get("n_embd"))
    heads = part.get("num_attention_heads", part.get("n_head"))
    if not isinstance(hidden, int) or not isinstance(heads, int):
        return
    name = "num_attention_heads" if "num_attention_heads" in part else "n_head"
    if part.get("head_dim") is None and hidden % heads:
        raise _wrong(location, prefix + name, f"a divisor of the width {hidden}", heads)
    shared = part.get("num_key_value_heads")
    if isinstance(shared, int) and heads % shared:
        raise _wrong(location, prefix + "num_key_value_heads", f"a divisor of the {heads} attention heads", shared)


def _check_token_ids(location: str, prefix: str, part: Mapping[str, Any]) -> None:
    size = part.get("vocab_size")
    for name in TOKEN_IDS:
        value = part.get(name)
        for token in value if isinstance(value, list) else [value]:
            below = size if isinstance(size, int) else LARGEST
            if token is not None and not (isinstance(token, int) and -1 <= token < below):  # -1: none, in old files
                raise _wrong(location, prefix + name, f"a token id below vocab_size ({below})", value)


def _check_implementations(config: Mapping[str, Any], location: str) -> None:
    """Refuse attention and quantisation whose code would be fetched from a hub."""
    for path, value in _leaves(config):
        field = next((part for part in path.split(".") if IMPLEMENTATION.fullmatch(part)), None)
        if field and value not in IMPLEMENTATIONS:
            raise ModelFilesError(
                f"{location}: {CONFIG}: {path} names the kernel {value!r}; that is refused. Remove the field"
            )
        if path.rpartition(".")[2] == "quant_method" and value in REMOTE_KERNELS:
            raise ModelFilesError(
                f"{location}: {CONFIG}: {path} is {value!r}, whose kernels come from a hub; that is refused. Take the "
                "model without quantisation"
            )
    if "transformers_weights" in config:
        raise ModelFilesError(
            f"{location}: {CONFIG}: transformers_weights names other weights; that is refused. Remove the field, and "
            f"call the weights {SINGLE}"
        )


def _check_code(name: str, content: Mapping[str, Any], location: str) -> None:
    """Refuse files that ask for Python code of the folder or of a hub."""
    for path in _keys(content, "auto_map"):
        if not (name == CONFIG and path == "auto_map" and _known_to_transformers(content)):
            raise ModelFilesError(f"{location} wants to run its own code ({name}: {path}); that is refused")
    if content.get("custom_generate"):
        raise ModelFilesError(f"{location} wants to run its own code ({name}: custom_generate); that is refused")


def _known_to_transformers(config: Mapping[str, Any]) -> bool:
    """Whether the classes that a folder brings code for are ones that Transformers has itself, by name.

    So it is with Phi-3. Without `trust_remote_code` the library takes its own and never looks at the folder's.
    """
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    own = {
        "AutoConfig": CONFIG_MAPPING_NAMES.get(kind),
        "AutoModelForCausalLM": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind),
    }
    named = config["auto_map"]
    return isinstance(named, dict) and all(
        own.get(auto) == str(name).rpartition(".")[2] for auto, name in named.items()
    )


def _check_tokenizer_files(folder: Path, settings: Mapping[str, Any], location: str) -> None:
    """Refuse tokenizer settings that name files elsewhere; Transformers reads them where the usual file is missing."""
    for name, value in settings.items():
        if name == "fast_tokenizer_files":
            named = value if isinstance(value, list) else [value]
        elif name.endswith("_file") and name != "special_tokens_map_file" and not (folder / TOKENIZER).is_file():
            named = [value]
        else:
            continue
        for file in named:
            if file is not None and not (isinstance(file, str) and PLAIN.fullmatch(file) and file != MANIFEST):
                raise _wrong(location, name, "the name of a file beside it", file, TOKENIZER_CONFIG)


def _check_tokenizer(tokenizer: Mapping[str, Any], config: Mapping[str, Any], location: str) -> None:
    """Refuse a tokenizer without a model, and one whose vocabulary has ids that the embedding lacks."""
    model = tokenizer.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise ModelFilesError(f"{location}: {TOKENIZER} has no model with a vocabulary: {REMEDY}")
    size = _text_part(config).get("vocab_size")
    vocabulary = model["vocab"]
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    largest = max((i for i in ids if isinstance(i, int)), default=-1)
    if isinstance(size, int) and largest >= size:
        raise ModelFilesError(
            f"{location}: {TOKENIZER} has token ids up to {largest}, {CONFIG} a vocab_size of {size}: the tokenizer "
            "belongs to another model"
        )


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the configuration and those nested in it, each with the prefix of its fields."""
    yield "", config
    for name, value in config.items():
        if name.endswith("_config") and isinstance(value, dict) and name != "quantization_config":
            yield f"{name}.", value


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted path, value) of everything in nested objects and lists."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{place}]")
    else:
        yield path, value


def _keys(value: object, key: str, path: str = "") -> Iterator[str]:
    """Yield the dotted path of each occurrence of a key in nested objects."""
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        here = f"{path}.{name}" if path else str(name)
        if name == key:
            yield here
        yield from _keys(inner, key, here)


def _number(value: object, holds: Any) -> bool:  # noqa: ANN401 - a predicate of numbers
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(holds(value))


def _wrong(location: str, field: str, expected: str, actual: object, file: str = CONFIG) -> ModelFilesError:
    return ModelFilesError(
        f"{location}: {file}: {field} must be {expected}, got {actual!r}; the file is damaged or not of this model: "
        f"{REMEDY}"
    )
