"""The partitions of the asset graph, and the one rule for their names."""

from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from resources.storage import can_name_file
from synth_assets.stages.generation.imports import BATCH as IMPORTED

BATCHES_NAME = "batches"
BATCHES = dg.DynamicPartitionsDefinition(name=BATCHES_NAME)
"""One key per batch of raw instructions; a key exists once somebody asked for it."""

FIRST_BATCH = "first"
"""What the first batch is called where nobody named it."""

SHOWN_CHARACTERS = 40  # of a name in a message


class BatchNameError(ValueError):
    """No batch may have this name; the message says which names are allowed."""


def check_batch(name: str, stored: Iterable[str] = ()) -> str:
    """Return `name` if a batch may have it. Every command, sensor and asset asks this function.

    Args:
        name: the name of a batch, new or not.
        stored: the batches whose tables are stored.

    Raises:
        BatchNameError: no file may have the name, imported rows have it, or a stored batch differs in case alone.
    """
    shown = shortened(name)
    if not can_name_file(name):
        raise BatchNameError(
            f"no batch can be named {shown}: use a-z, A-Z, 0-9, '.', '-' and '_', begin with a letter or digit, "
            "and use at most 128 characters; `synth batches --prune` removes batches with other names"
        )
    if name == IMPORTED:
        raise BatchNameError(f"no batch can be named {shown}: it is the batch of imported rows. Choose another name")
    stored = list(stored)
    twin = next((batch for batch in stored if batch.casefold() == name.casefold()), None)
    if twin and name not in stored:
        raise BatchNameError(
            f"no batch can be named {shown} beside {twin}: they differ in letter case alone, and some disks hold one "
            f"file for both. Use {twin}, or choose another name"
        )
    return name


def usable_batches(names: Iterable[str]) -> list[str]:
    """Return the names that `check_batch` accepts, in order; the Dagster UI adds partitions of any name."""
    return [name for name in names if can_name_file(name) and name != IMPORTED]


def stored_batches(tables: Path) -> list[str]:
    """Return the batches whose table lies under `tables`, sorted."""
    return sorted(path.stem for path in (tables / "raw_instructions").glob("*.parquet"))


def shortened(name: str) -> str:
    """Return the name quoted, printable and cut to a length that fits a line."""
    return repr(name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}...")
