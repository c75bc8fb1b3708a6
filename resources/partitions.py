"""Partitions of the asset graph, and the rule for their names."""

from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from resources.storage import can_name_file
from synth_assets.schemas.tables import IMPORTED_BATCH

BATCHES_NAME = "batches"
BATCHES = dg.DynamicPartitionsDefinition(name=BATCHES_NAME)
"""One key per batch of raw instructions; keys are added when a batch is requested."""

FIRST_BATCH = "first"
"""Default name of the first batch."""

MAX_SHOWN_CHARACTERS = 40  # of a name in a message


class BatchNameError(ValueError):
    """A batch cannot have this name; the message lists the allowed characters."""


def check_batch(name: str, stored: Iterable[str] = ()) -> str:
    """Return `name` if it is a valid batch name. Every command, sensor and asset uses this check.

    Args:
        name: the name of a batch, new or not.
        stored: the batches whose tables are stored.

    Raises:
        BatchNameError: the name is no safe file name, is reserved for imports, or differs from a stored batch in case
            only.
    """
    shown = shortened(name)
    if not can_name_file(name):
        raise BatchNameError(
            f"no batch can be named {shown}: use a-z, A-Z, 0-9, '.', '-' and '_', begin with a letter or digit, "
            "and use at most 128 characters; `synth batches --prune` removes batches with other names"
        )
    if name == IMPORTED_BATCH:
        raise BatchNameError(f"no batch can be named {shown}: it is the batch of imported rows. Choose another name")
    stored = list(stored)
    twin = next((batch for batch in stored if batch.casefold() == name.casefold()), None)
    if twin and name not in stored:
        raise BatchNameError(
            f"no batch can be named {shown} beside {twin}: they differ in letter case only, and some file systems have "
            f"one file for both. Use {twin}, or choose another name"
        )
    return name


def usable_batches(names: Iterable[str]) -> list[str]:
    """Return the valid names, in order; the Dagster UI adds partitions of any name."""
    return [name for name in names if can_name_file(name) and name != IMPORTED_BATCH]


def stored_batches(tables: Path) -> list[str]:
    """Return the batches with a table under `tables`, sorted."""
    return sorted(path.stem for path in (tables / "raw_instructions").glob("*.parquet"))


def shortened(name: str) -> str:
    """Return the name quoted, printable and truncated to fit a line."""
    return repr(name if len(name) <= MAX_SHOWN_CHARACTERS else f"{name[:MAX_SHOWN_CHARACTERS]}...")
