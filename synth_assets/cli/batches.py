"""`synth batches`: list and remove batches of raw instructions."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from resources.check_results import removed_partition
from resources.partitions import BATCHES_NAME, shortened, stored_batches, usable_batches
from synth_assets.cli.moments import moment
from synth_assets.cli.session import Session
from synth_assets.orchestration.run_queue import run_slot_holder

RAW = "raw_instructions"


def batches_text(session: Session) -> str:
    """Return a line for each batch with its name, its number of rows and the time of its generation."""
    names = _names(session)
    if not names:
        return "there is no batch yet; `synth run` generates the first"
    usable = set(usable_batches(names))
    width = max(len(_shown(name)) for name in names)
    lines = [f"{_shown(name):{width}}  {_state(session, name, name in usable)}" for name in names]
    if unusable := [name for name in names if name not in usable]:
        lines.append(f"{len(unusable)} have an invalid name; `synth batches --prune` removes them")
    return "\n".join(lines)


def unusable_batches(session: Session) -> list[str]:
    """Return the batches with an invalid name, which the UI lets a user add."""
    names = _names(session)
    usable = set(usable_batches(names))
    return [name for name in names if name not in usable]


def removal_text(session: Session, names: Sequence[str]) -> str:
    """Return a description of what the removal of these batches deletes and keeps.

    Raises:
        ValueError: a batch does not exist, or a run is writing the tables.
    """
    existing = _names(session)
    if missing := [name for name in names if name not in existing]:
        listed = ", ".join(map(shortened, existing)) or "none"
        raise ValueError(f"batch {shortened(missing[0])} does not exist; the batches are {listed}")
    if holder := run_slot_holder(session.home):
        raise ValueError(f"{holder} is writing the tables; remove batches after it has finished")
    lines = [
        f"remove {_shown(name)}: {_state(session, name, True)}, {len(_blocks(session, name))} blocks" for name in names
    ]
    lines.append("Existing datasets and adapters keep their lineage; the next run builds datasets without the batch.")
    return "\n".join(lines)


def remove_batches(session: Session, names: Sequence[str]) -> str:
    """Delete the rows, the cached blocks and the partition of each batch; return a message.

    Raises:
        ValueError: a batch does not exist, or a run is writing the tables.
    """
    removal_text(session, names)
    for name in names:
        for path in [*_blocks(session, name), _table(session, name)]:
            path.unlink(missing_ok=True)
        if _was_materialised(session, name):
            session.instance.report_runless_asset_event(removed_partition(dg.AssetKey(RAW), name))
        session.instance.delete_dynamic_partition(BATCHES_NAME, name)
    return f"removed {', '.join(map(_shown, names))}"


def _names(session: Session) -> list[str]:
    """Return the partitions in the order of their creation, then the stored batches without a partition."""
    partitions = list(session.instance.get_dynamic_partitions(BATCHES_NAME))
    return [*partitions, *(name for name in stored_batches(session.home / "tables") if name not in partitions)]


def _shown(name: str) -> str:
    return name if usable_batches([name]) else shortened(name)


def _state(session: Session, name: str, usable: bool) -> str:
    path = _table(session, name)
    if not usable:
        return "invalid name"
    if not path.is_file():
        return "no rows yet"
    rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    return f"{rows:,} rows, generated {moment(path.stat().st_mtime)}"


def _table(session: Session, name: str) -> Path:
    """Return the path of the table of a batch; a path that does not exist if the name is invalid."""
    folder = session.home / "tables" / RAW
    return folder / f"{name}.parquet" if usable_batches([name]) else folder / ".none"


def _blocks(session: Session, name: str) -> list[Path]:
    """Return the cached blocks of generated rows of a batch."""
    shards = sorted((session.home / "shards" / "generation").glob("*.parquet"))
    return [path for path in shards if _batch_of(path) == name]


def _batch_of(block: Path) -> str | None:
    scan = pl.scan_parquet(block, glob=False)
    if "batch" not in scan.collect_schema():
        return None
    batches = scan.select("batch").head(1).collect()["batch"]
    return batches[0] if len(batches) else None


def _was_materialised(session: Session, name: str) -> bool:
    records_filter = dg.AssetRecordsFilter(dg.AssetKey(RAW), asset_partitions=[name])
    return bool(session.instance.fetch_materializations(records_filter, limit=1).records)
