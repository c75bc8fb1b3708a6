"""Error for unusable model files, and a JSON reader that raises it."""

import json
from pathlib import Path
from typing import Any


class ModelFilesError(ValueError):
    """A model is missing, unreachable or rejected. The message names the remedy."""


REMEDY = "copy or download the model again"


def read_json(path: Path, location: str) -> dict[str, Any]:
    """Read a model's JSON file that holds an object.

    Raises:
        ModelFilesError: the file is not valid UTF-8 JSON, or not an object; names the file and the remedy.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(
            f"{location}: {path.name} cannot be read ({' '.join(str(error).split())}); the file is damaged or "
            f"incomplete: {REMEDY}"
        ) from error
    except OSError as error:
        raise ModelFilesError(f"{location}: {path.name} cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise ModelFilesError(
            f"{location}: {path.name} must contain a JSON object, got {type(content).__name__}: {REMEDY}"
        )
    return content
