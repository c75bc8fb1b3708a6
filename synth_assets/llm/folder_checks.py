"""Validate a model folder before loading it: files are complete, plausible, inside the folder, and run no code.

The same rules apply to local folders and hub snapshots. Messages name the model, the file and the field.
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

POSITIVE_FIELDS = (  # integers above 0 where present
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"),
    *("hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "vocab_size"),
    *("num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "intermediate_size", "n_inner"),
)
NULLABLE_FIELDS = ("num_key_value_heads", "head_dim", "n_inner", "intermediate_size")  # null selects the default
POSITIVE_NUMBER_FIELDS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "rope_theta")
PROBABILITY_FIELDS = ("attention_dropout", "hidden_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "dropout")
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
MAX_SIZE = 2**31 - 1
IMPLEMENTATIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
REMOTE_KERNELS = ("mxfp4", "finegrained_fp8")  # quantisation methods whose kernels Transformers downloads
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
PLAIN_FILE_NAME = re.compile(r"[\w-][\w.-]*")


def check_links(folder: Path, location: str) -> None:
    """Raise ModelFilesError for symbolic links that leave the folder or, in a hub cache, its blobs."""
    root = folder.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            continue
        target = path.resolve()
        if not any(target.is_relative_to(parent) for parent in allowed):
            raise ModelFilesError(
                f"{location}: {path.relative_to(folder)} links to a file outside the folder; copy that file into it"
            )
        if not target.exists():
            raise ModelFilesError(f"{location}: {path.relative_to(folder)} is a broken link: {REMEDY}")


def check_description_files(folder: Path, location: str) -> dict[str, Any]:
    """Validate the JSON files of a model folder and return its config.json.

    Raises:
        ModelFilesError: a file is damaged, asks for custom code, or has an invalid value; names the file and the field.
    """
    if not (folder / CONFIG).is_file():
        raise ModelFilesError(f"{location} has no {CONFIG}, so it is not a Transformers model")
    files = {path.name: read_json(path, location) for path in sorted(folder.glob("*.json"))}
    config = files[CONFIG]
    for name, content in files.items():
        if name not in (INDEX, TOKENIZER):
            _check_code(name, content, location)
    _check_implementations(config, location)
    check_values(config, location)
    tokenizer_config = files.get(TOKENIZER_CONFIG, {})
    _check_tokenizer_files(folder, tokenizer_config, location)
    if TOKENIZER in files:
        _check_tokenizer(files[TOKENIZER], config, location)
    return config


def check_architecture(folder: Path, location: str) -> None:
    """Raise ModelFilesError if the installed Transformers does not implement the model's architecture."""
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
    )

    kind = read_json(folder / CONFIG, location).get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING_NAMES:
        raise _field_error(location, "model_type", "an architecture that the installed Transformers supports", kind)


def check_values(config: Mapping[str, Any], location: str) -> None:
    """Raise ModelFilesError for a value in config.json that no model can have."""
    for path, value in _iter_leaves(config):
        if isinstance(value, float) and math.isnan(value):
            raise _field_error(location, path, "a number", value)
    for prefix, part in _iter_configs(config):
        for name in POSITIVE_FIELDS:
            if name in part and not (part[name] is None and name in NULLABLE_FIELDS):
                _check_size(location, prefix + name, part[name])
        for name in POSITIVE_NUMBER_FIELDS:
            if (value := part.get(name)) is not None and not _is_number(value, lambda v: 0 < v < math.inf):
                raise _field_error(location, prefix + name, "a number above 0", value)
        for name in PROBABILITY_FIELDS:
            if (value := part.get(name)) is not None and not _is_number(value, lambda v: 0 <= v <= 1):
                raise _field_error(location, prefix + name, "a number from 0 to 1", value)
        _check_heads(location, prefix, part)
        _check_token_ids(location, prefix, part)


def _check_size(location: str, field: str, value: object) -> None:
    values = value if isinstance(value, list) and value else [value]  # some families list one value per layer
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v <= MAX_SIZE for v in values):
        raise _field_error(location, field, "an integer above 0", value)


def _check_heads(location: str, prefix: str, part: Mapping[str, Any]) -> None:
    hidden = part.get("hidden_size", part.get("n_embd"))
    heads = part.get("num_attention_heads", part.get("n_head"))
    if not isinstance(hidden, int) or not isinstance(heads, int):
        return
    name = "num_attention_heads" if "num_attention_heads" in part else "n_head"
    if part.get("head_dim") is None and hidden % heads:
        raise _field_error(location, prefix + name, f"a divisor of the hidden size {hidden}", heads)
    shared = part.get("num_key_value_heads")
    if isinstance(shared, int) and heads % shared:
        raise _field_error(
            location, prefix + "num_key_value_heads", f"a divisor of the {heads} attention heads", shared
        )


def _check_token_ids(location: str, prefix: str, part: Mapping[str, Any]) -> None:
    size = part.get("vocab_size")
    for name in TOKEN_IDS:
        value = part.get(name)
        for token in value if isinstance(value, list) else [value]:
            limit = size if isinstance(size, int) else MAX_SIZE
            if token is not None and not (isinstance(token, int) and -1 <= token < limit):  # -1 means none in old files
                raise _field_error(location, prefix + name, f"a token id below vocab_size ({limit})", value)


def _check_implementations(config: Mapping[str, Any], location: str) -> None:
    """Raise ModelFilesError for attention or quantisation kernels that would be downloaded from a hub."""
    for path, value in _iter_leaves(config):
        field = next((part for part in path.split(".") if IMPLEMENTATION.fullmatch(part)), None)
        if field and value not in IMPLEMENTATIONS:
            raise ModelFilesError(
                f"{location}: {CONFIG}: {path} names the kernel {value!r}, which is not allowed. Remove the field"
            )
        if path.rpartition(".")[2] == "quant_method" and value in REMOTE_KERNELS:
            raise ModelFilesError(
                f"{location}: {CONFIG}: {path} is {value!r}, whose kernels are downloaded from a hub; this is not "
                "allowed. Use the unquantised model"
            )
    if "transformers_weights" in config:
        raise ModelFilesError(
            f"{location}: {CONFIG}: transformers_weights names other weight files, which is not allowed. Remove the "
            f"field and rename the weights to {SINGLE}"
        )


def _check_code(name: str, content: Mapping[str, Any], location: str) -> None:
    """Raise ModelFilesError for files that ask for Python code from the folder or a hub."""
    for path in _iter_paths(content, "auto_map"):
        if not (name == CONFIG and path == "auto_map" and _implemented_by_transformers(content)):
            raise ModelFilesError(f"{location} requires custom code ({name}: {path}), which is not allowed")
    if content.get("custom_generate"):
        raise ModelFilesError(f"{location} requires custom code ({name}: custom_generate), which is not allowed")


def _implemented_by_transformers(config: Mapping[str, Any]) -> bool:
    """Return whether Transformers itself implements the classes that a folder ships code for, by class name.

    Phi-3 is such a model. Without `trust_remote_code`, Transformers uses its own class and ignores the folder's code.
    """
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    builtin = {
        "AutoConfig": CONFIG_MAPPING_NAMES.get(kind),
        "AutoModelForCausalLM": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind),
    }
    auto_map = config["auto_map"]
    return isinstance(auto_map, dict) and all(
        builtin.get(auto) == str(name).rpartition(".")[2] for auto, name in auto_map.items()
    )


def _check_tokenizer_files(folder: Path, settings: Mapping[str, Any], location: str) -> None:
    """Raise ModelFilesError for tokenizer files outside the folder, which Transformers reads without tokenizer.json."""
    for name, value in settings.items():
        if name == "fast_tokenizer_files":
            files = value if isinstance(value, list) else [value]
        elif name.endswith("_file") and name != "special_tokens_map_file" and not (folder / TOKENIZER).is_file():
            files = [value]
        else:
            continue
        for file in files:
            if file is not None and not (
                isinstance(file, str) and PLAIN_FILE_NAME.fullmatch(file) and file != MANIFEST
            ):
                raise _field_error(location, name, "a file name in the same folder", file, TOKENIZER_CONFIG)


def _check_tokenizer(tokenizer: Mapping[str, Any], config: Mapping[str, Any], location: str) -> None:
    """Raise ModelFilesError for a tokenizer without a vocabulary, or with ids beyond the model's `vocab_size`."""
    model = tokenizer.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise ModelFilesError(f"{location}: {TOKENIZER} has no model with a vocabulary: {REMEDY}")
    size = _text_config(config).get("vocab_size")
    vocabulary = model["vocab"]
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    largest = max((i for i in ids if isinstance(i, int)), default=-1)
    if isinstance(size, int) and largest >= size:
        raise ModelFilesError(
            f"{location}: {TOKENIZER} has token ids up to {largest}, but vocab_size in {CONFIG} is {size}: the "
            "tokenizer belongs to another model"
        )


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _iter_configs(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (field prefix, configuration) of a configuration and of those nested in it."""
    yield "", config
    for name, value in config.items():
        if name.endswith("_config") and isinstance(value, dict) and name != "quantization_config":
            yield f"{name}.", value


def _iter_leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted path, value) of each leaf in nested objects and lists."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _iter_leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _iter_leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def _iter_paths(value: object, key: str, path: str = "") -> Iterator[str]:
    """Yield the dotted path of each occurrence of a key in nested objects."""
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        inner_path = f"{path}.{name}" if path else str(name)
        if name == key:
            yield inner_path
        yield from _iter_paths(inner, key, inner_path)


def _is_number(value: object, predicate: Any) -> bool:  # noqa: ANN401 - a predicate of numbers
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(predicate(value))


def _field_error(location: str, field: str, expected: str, actual: object, file: str = CONFIG) -> ModelFilesError:
    return ModelFilesError(
        f"{location}: {file}: {field} must be {expected}, got {actual!r}; the file is damaged or belongs to another "
        f"model: {REMEDY}"
    )
