"""The weight files of a model's folder: which ones are loaded, and what their headers say. Reads no tensor."""

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
HEADER_LIMIT = 100_000_000  # bytes, that of the safetensors library
BITS: Mapping[str, int] = {  # of one value, by the format's name of its type; of others sizes are not compared
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64"), 64),
}


class Tensor(NamedTuple):
    """A tensor as a header describes it."""

    name: str
    shape: tuple[int, ...]


def weight_files(folder: Path, location: str) -> list[Path]:
    """Return the files that Transformers loads: the single one, else the shards that the index names.

    Raises:
        ModelFilesError: there is neither, or the index names a file that is not a plain safetensors file of this
            folder, or one that is missing.
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
    """Return the shards that an index names, sorted; ModelFilesError where one is no plain name of a safetensors file.

    A name with a folder in it would load a file that the model's revision does not cover, and another suffix a pickle.
    """
    shards = read_json(index, location).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelFilesError(f"{location}: {index.name} has no weight_map: {REMEDY}")
    for tensor, name in shards.items():
        if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
            raise ModelFilesError(
                f"{location}: {index.name}: weight_map[{tensor!r}] must name a *.safetensors file beside the index, "
                f"got {name!r}; that is refused"
            )
    return sorted(set(shards.values()))


def check_weights(folder: Path, location: str) -> None:
    """Refuse weights that are incomplete, or an index that reaches outside the folder; ModelFilesError names the file.

    An index beside a single file is checked too: which of them is loaded is the library's choice.
    """
    for index in sorted(folder.glob("*.index.json")):
        if index.name != "pytorch_model.bin.index.json":  # never read: only safetensors are
            indexed_names(index, location)
    for path in weight_files(folder, location):
        header(path, location)


def header(path: Path, location: str) -> dict[str, Any]:
    """Return the header of a safetensors file (github.com/huggingface/safetensors, "Format") after checking its sizes.

    Raises:
        ModelFilesError: the file is shorter or longer than its header says, or the header is no JSON of tensors.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(HEADER_LIMIT, size - 8):
                raise _damaged(path, location, f"{size:,} bytes are too few for its header")
            tensors = json.loads(file.read(length))
        tensors.pop("__metadata__", None)
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
        wrong = next((name for name, tensor in tensors.items() if not _consistent(tensor)), None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelFilesError):
            raise
        raise _damaged(path, location, "its header is not that of a safetensors file") from error
    if wrong is not None:
        raise _damaged(path, location, f"shape and bytes of {wrong} disagree")
    if size != 8 + length + end:
        raise _damaged(path, location, f"expected {8 + length + end:,} bytes, got {size:,}")
    return tensors


def tensors_of(folder: Path, location: str) -> Iterator[Tensor]:
    """Yield each tensor that is loaded; of a folder without single file and index, those of all its safetensors."""
    loaded = (folder / SINGLE).is_file() or (folder / INDEX).is_file()
    for path in weight_files(folder, location) if loaded else sorted(folder.glob("*.safetensors")):
        for name, tensor in header(path, location).items():
            yield Tensor(name, tuple(tensor["shape"]))


def parameters(folder: Path) -> int:
    """Return how many numbers the weight files of a folder hold, read from their headers alone."""
    return sum(math.prod(tensor.shape) for tensor in tensors_of(folder, str(folder)))


def _consistent(tensor: Mapping[str, Any]) -> bool:
    start, end = tensor["data_offsets"]
    shape, bits = tensor["shape"], BITS.get(tensor["dtype"])
    fits = bits is None or math.prod(shape) * bits == 8 * (end - start)
    return 0 <= start <= end and min(shape, default=0) >= 0 and fits


def _damaged(path: Path, location: str, reason: str) -> ModelFilesError:
    return ModelFilesError(f"{location}: {path.name} is damaged or incomplete ({reason}): {REMEDY}")
