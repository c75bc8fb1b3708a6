"""Recipe hash of the embedded models, and the manifest that records it with the shipped weights."""

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from synth_assets.storage.code_digest import code_digest

SOURCES = (
    *("knowledge", "relations", "task", "families", "world", "answers", "verifier", "chat_format", "corpus"),
    *("tokenizer", "optimization", "language_models", "sampling", "reference_student", "reward_model"),
)
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "safetensors")
MANIFEST = "manifest.json"


def recipe_hash() -> str:
    """Return the SHA-256 of the code in SOURCES, without docstrings and comments (see code_digest.py)."""
    return code_digest(*(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in SOURCES))


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder except its manifest, by relative POSIX path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_manifest(folder: Path, *, recipe: str, qualities: dict[str, Any], cpu_seconds: dict[str, float]) -> None:
    """Write the manifest of a folder of weights: recipe, library versions, file hashes, qualities and CPU time."""
    manifest = {
        "recipe": recipe,
        "python": ".".join(map(str, sys.version_info[:3])),
        "libraries": {library: version(library) for library in LIBRARIES},
        "cpu_seconds": cpu_seconds,
        "qualities": qualities,
        "files": file_hashes(folder),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a folder of weights."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
