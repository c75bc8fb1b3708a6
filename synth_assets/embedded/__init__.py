"""The embedded models (teacher, base, reward model; a million parameters each) and the mini world they come from."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
MODELS = ("teacher", "base", "reward")


def model_path(name: str) -> Path:
    """Return the folder of a shipped model: `teacher`, `base` or `reward`.

    Raises:
        ValueError: there is no such model.
    """
    if name not in MODELS:
        raise ValueError(f"no embedded model {name!r}; there are {', '.join(MODELS)}")
    return WEIGHTS / name
