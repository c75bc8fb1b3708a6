"""The error of a model that cannot be used, and the reading of its JSON files."""

import json
from pathlib import Path
from typing import Any


class ModelFilesError(ValueError):
    """A model that cannot be used: missing, out of reach, or refused; the message says what to do."""


REMEDY = "copy or fetch the model again"


def read_json(path: Path, location: str) -> dict[str, Any]:
    """Return the object in a JSON file of a model.

    Raises:
        ModelFilesError: the file is not complete UTF-8 JSON, or holds no object; names the file and the remedy.
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
            f"{location}: {path.name} must hold a JSON object, got {type(content).__name__}: {REMEDY}"
        )
    return content
