"""Embedded models (teacher, base, reward model; one million parameters each) and the world they are trained on."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
MODELS = ("teacher", "base", "reward")


def model_path(name: str) -> Path:
    """Return the folder of a shipped model: `teacher`, `base` or `reward`.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in MODELS:
        raise ValueError(f"no embedded model {name!r}; there are {', '.join(MODELS)}")
    return WEIGHTS / name
