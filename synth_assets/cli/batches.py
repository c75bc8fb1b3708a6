"""`synth batches`: the batches of raw instructions, and the removal of one."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from resources.check_results import removed_partition
from synth_assets.cli.session import Session
from synth_assets.orchestration.run_queue import run_slot_holder
from synth_assets.stages.generation.partitions import BATCHES_NAME, shortened, stored_batches, usable_batches

RAW = "raw_instructions"


def batches_text(session: Session) -> str:
    """Return a line for each batch: its name, its rows and when they were made."""
    names = _names(session)
    if not names:
        return "there is no batch yet: synth run"
    usable = set(usable_batches(names))
    width = max(len(_shown(name)) for name in names)
    lines = [f"{_shown(name):{width}}  {_state(session, name, name in usable)}" for name in names]
    if unusable := [name for name in names if name not in usable]:
        lines.append(f"{len(unusable)} cannot be made under that name; synth batches --prune removes them")
    return "\n".join(lines)


def unusable_batches(session: Session) -> list[str]:
    """Return the batches that the UI added under a name that no batch may have."""
    names = _names(session)
    usable = set(usable_batches(names))
    return [name for name in names if name not in usable]


def removal_text(session: Session, names: Sequence[str]) -> str:
    """Return what the removal of these batches deletes and what stays.

    Raises:
        ValueError: there is no batch of a name, or a run is writing the tables.
    """
    known = _names(session)
    if missing := [name for name in names if name not in known]:
        listed = ", ".join(map(shortened, known)) or "none"
        raise ValueError(f"no batch {shortened(missing[0])}; there are {listed}")
    if holder := run_slot_holder(session.home):
        raise ValueError(f"{holder} is writing the tables: remove batches when it has ended")
    lines = [
        f"remove {_shown(name)}: {_state(session, name, True)}, {len(_blocks(session, name))} blocks" for name in names
    ]
    lines.append("Datasets and adapters made from it stay, with their lineage; the next run makes datasets without it.")
    return "\n".join(lines)


def remove_batches(session: Session, names: Sequence[str]) -> str:
    """Delete the rows, the blocks and the partition of each batch; return what was done.

    Raises:
        ValueError: there is no batch of a name, or a run is writing the tables.
    """
    removal_text(session, names)
    for name in names:
        for path in [*_blocks(session, name), _table(session, name)]:
            path.unlink(missing_ok=True)
        if _was_made(session, name):
            session.instance.report_runless_asset_event(removed_partition(dg.AssetKey(RAW), name))
        session.instance.delete_dynamic_partition(BATCHES_NAME, name)
    return f"removed {', '.join(map(_shown, names))}"


def _names(session: Session) -> list[str]:
    """Return the partitions in the order they were added, then stored batches that are no partition."""
    partitions = list(session.instance.get_dynamic_partitions(BATCHES_NAME))
    return [*partitions, *(name for name in stored_batches(session.home / "tables") if name not in partitions)]


def _shown(name: str) -> str:
    return name if usable_batches([name]) else shortened(name)


def _state(session: Session, name: str, usable: bool) -> str:
    path = _table(session, name)
    if not usable:
        return "cannot be made"
    if not path.is_file():
        return "no rows yet"
    rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    made = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    return f"{rows:,} rows, made {made:%Y-%m-%d %H:%M} UTC"


def _table(session: Session, name: str) -> Path:
    """Return the path of a batch's table; of a name that no file may have one that does not exist."""
    folder = session.home / "tables" / RAW
    return folder / f"{name}.parquet" if usable_batches([name]) else folder / ".none"


def _blocks(session: Session, name: str) -> list[Path]:
    """Return the generator's blocks of rows of this batch."""
    shards = sorted((session.home / "shards" / "generation").glob("*.parquet"))
    return [path for path in shards if _batch_of(path) == name]


def _batch_of(block: Path) -> str | None:
    scan = pl.scan_parquet(block, glob=False)
    if "batch" not in scan.collect_schema():
        return None
    batches = scan.select("batch").head(1).collect()["batch"]
    return batches[0] if len(batches) else None


def _was_made(session: Session, name: str) -> bool:
    where = dg.AssetRecordsFilter(dg.AssetKey(RAW), asset_partitions=[name])
    return bool(session.instance.fetch_materializations(where, limit=1).records)
