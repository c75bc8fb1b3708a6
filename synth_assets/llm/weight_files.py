"""Find the weight files of a model folder and read their safetensors headers, without reading tensors."""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from synth_assets.llm.errors import REMEDY, ModelFilesError, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PLAIN_NAME = re.compile(r"[\w-][\w.-]*\.safetensors")
HEADER_LIMIT = 100_000_000  # bytes, the limit of the safetensors library
BITS: Mapping[str, int] = {  # bits per value by safetensors dtype; sizes of other dtypes are not checked
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64"), 64),
}


class Tensor(NamedTuple):
    """Name and shape of a tensor, from a safetensors header."""

    name: str
    shape: tuple[int, ...]


def weight_files(folder: Path, location: str) -> list[Path]:
    """Return the files that Transformers loads: the single weight file, else the shards in the index.

    Raises:
        ModelFilesError: there is neither, or the index names a missing file or one that is not a safetensors file in
            this folder.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise ModelFilesError(f"{location} has neither {SINGLE} nor {INDEX}: {REMEDY}, or convert it to safetensors")
    names = indexed_names(folder / INDEX, location)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelFilesError(f"{location}: {INDEX} names {missing[0]}, which is not in the folder: {REMEDY}")
    return [folder / name for name in names]


def indexed_names(index: Path, location: str) -> list[str]:
    """Return the sorted shard names in an index. Raises ModelFilesError unless each is a plain *.safetensors name.

    A path would load a file outside the model's revision, and another suffix could be a pickle.
    """
    shards = read_json(index, location).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelFilesError(f"{location}: {index.name} has no weight_map: {REMEDY}")
    for tensor, name in shards.items():
        if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
            raise ModelFilesError(
                f"{location}: {index.name}: weight_map[{tensor!r}] must name a *.safetensors file in the same folder, "
                f"got {name!r}"
            )
    return sorted(set(shards.values()))


def check_weights(folder: Path, location: str) -> None:
    """Raise ModelFilesError for incomplete weights, or an index that refers to files outside the folder.

    Every index is checked, even next to a single weight file, because the library decides which one it loads.
    """
    for index in sorted(folder.glob("*.index.json")):
        if index.name != "pytorch_model.bin.index.json":  # never loaded
            indexed_names(index, location)
    for path in weight_files(folder, location):
        header(path, location)


def header(path: Path, location: str) -> dict[str, Any]:
    """Read and validate the header of a safetensors file (github.com/huggingface/safetensors, "Format").

    Raises:
        ModelFilesError: the file size does not match the header, or the header is not a JSON object of tensors.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(HEADER_LIMIT, size - 8):
                raise _damaged_file_error(path, location, f"{size:,} bytes are too short for its header")
            tensors = json.loads(file.read(length))
        tensors.pop("__metadata__", None)
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
        wrong = next((name for name, tensor in tensors.items() if not _consistent(tensor)), None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelFilesError):
            raise
        raise _damaged_file_error(path, location, "its header is not a safetensors header") from error
    if wrong is not None:
        raise _damaged_file_error(path, location, f"shape and byte size of {wrong} disagree")
    if size != 8 + length + end:
        raise _damaged_file_error(path, location, f"expected {8 + length + end:,} bytes, got {size:,}")
    return tensors


def iter_tensors(folder: Path, location: str) -> Iterator[Tensor]:
    """Yield each tensor that Transformers loads; without weight file or index, those of all safetensors files."""
    loaded = (folder / SINGLE).is_file() or (folder / INDEX).is_file()
    for path in weight_files(folder, location) if loaded else sorted(folder.glob("*.safetensors")):
        for name, tensor in header(path, location).items():
            yield Tensor(name, tuple(tensor["shape"]))


def count_parameters(folder: Path) -> int:
    """Count the values in the weight files of a folder from their headers."""
    return sum(math.prod(tensor.shape) for tensor in iter_tensors(folder, str(folder)))


def _consistent(tensor: Mapping[str, Any]) -> bool:
    start, end = tensor["data_offsets"]
    shape, bits = tensor["shape"], BITS.get(tensor["dtype"])
    fits = bits is None or math.prod(shape) * bits == 8 * (end - start)
    return 0 <= start <= end and min(shape, default=0) >= 0 and fits


def _damaged_file_error(path: Path, location: str, reason: str) -> ModelFilesError:
    return ModelFilesError(f"{location}: {path.name} is damaged or incomplete ({reason}): {REMEDY}")
