"""Word lists of the rules, read from `data/*.txt`: one word a line, `#` begins a comment."""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("data")


@cache
def word_list(name: str) -> tuple[str, ...]:
    """Return the words of `data/<name>.txt` in the file's order."""
    lines = (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    return tuple(word for line in lines if (word := line.partition("#")[0].strip()))
