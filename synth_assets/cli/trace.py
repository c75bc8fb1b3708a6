"""`synth trace`: from a version of the registered model back to the rows that made it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.cli.rows import MADE, entry, pair_lines, present_pairs, row_story, rows_made
from synth_assets.cli.session import Session
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import model_version
from synth_assets.reporting.escaping import terminal_line
from synth_assets.schemas.records import AdapterRecord
from synth_assets.stages.promotion.candidates import VersionError, version_number
from synth_assets.storage.atomic import write_atomically
from synth_assets.storage.lineage import LineageError, ModelVersion, recalled_rows_of, training_rows
from synth_assets.storage.retractions import recalls_in_force, taint_text
from synth_assets.training.methods import ADAPTERS

SHOWN_GROUPS = 6
GROUPS = {
    "batch": "batch",
    "source": "source",
    "model": "model",
    "T asked": "temperature",
    "T answer": "response_temperature",
}
NUMBERS = {"score": "score", "chosen": "chosen_reward", "rejected": "rejected_reward", "margin": "margin"}
WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".csv": lambda rows, path: rows.write_csv(path),
    ".jsonl": lambda rows, path: rows.write_ndjson(path),
    ".parquet": lambda rows, path: rows.write_parquet(path),
}


def trace_text(session: Session, given: str, row: str | None, export: Path | None) -> str:
    """What a version was made from: counts over its rows, one row's story, and all of them in a file if asked for.

    Args:
        session: the deployment.
        given: a version's number, an alias, or an adapter asset.
        row: a row id or its beginning; its story is told instead of the counts.
        export: a .csv, .jsonl or .parquet file that gets one line for each row of each training, without its texts.

    Raises:
        LineageError: no such version or row, or its manifests are gone.
        ValueError: the file's suffix is none of these.
    """
    if export is not None and export.suffix not in WRITERS:
        raise ValueError(f"--export wants a file that ends in {', '.join(WRITERS)}, not {export.name}")
    version = find_version(session, given)
    rows = training_rows(session.storage.manifests(), version)
    lines = [entry("version", version.title)]
    lines += [_row_text(session, rows, row)] if row else _summary(session, version, rows)
    if export is not None:
        table = _with_making(session.home, rows)
        write_atomically(export.absolute(), lambda temporary: WRITERS[export.suffix](table, temporary))
        lines.append(entry("written", f"{table.height:,} rows to {export}"))
    return "\n".join(lines)


def find_version(session: Session, given: str) -> ModelVersion:
    """The version with this number or alias, or the present one of this adapter asset; LineageError without one."""
    number = version_of(session, given)
    try:
        return model_version(_tracker(session, given), number)
    except KeyError as error:
        raise LineageError(str(error.args[0])) from None


def version_of(session: Session, given: str) -> str:
    """The number of the version that a person names by number, alias or adapter asset.

    Raises:
        LineageError: there is none, or no adapter asset registered it; the message lists the versions there are.
    """
    records = {name: session.record(name, AdapterRecord) for name in ADAPTERS}
    newest = {name: record.model_version for name, record in records.items() if record}
    try:
        return version_number(_tracker(session, given), given, newest)
    except VersionError as error:
        raise LineageError(str(error)) from None


def _tracker(session: Session, given: str) -> MlflowTracker:
    if session.tracker is None:
        raise LineageError(f"there is no version {terminal_line(given)!r}: nothing was registered yet: synth run")
    return session.tracker


def _summary(session: Session, version: ModelVersion, rows: pl.DataFrame) -> list[str]:
    made = _with_making(session.home, rows)
    upstream = {name: data for name, data in version.data_versions.items() if "@" not in name}
    lines = [
        entry("made from", ", ".join(f"{name} {data[:16]}" for name, data in sorted(upstream.items()))),
        entry("rows", f"{rows['row_id'].n_unique():,} in all"),
    ]
    for asset, data_version in version.trainings():
        part = rows.filter(trained=asset)
        sides = ", ".join(f"{count:,} {fate}" for fate, count in part["fate"].value_counts(sort=True).iter_rows())
        lines.append(entry("", f"{sides} {'pairs' if _has(part, 'pair_id') else 'rows'} by {asset} {data_version}"))
    distinct = made.unique("row_id", keep="first", maintain_order=True)
    lines += [entry(label, _groups(distinct, name)) for label, name in GROUPS.items()]
    lines += [entry(label, _spread(rows, name)) for label, name in NUMBERS.items() if _has(rows, name)]
    recalls = recalls_in_force(session.storage.recalls())
    taint = taint_text(recalled_rows_of(session.storage.manifests(), version, recalls))
    lines.append(entry("tainted", terminal_line(taint, 1_000) or "no row of it was recalled"))
    first = rows["row_id"][0]
    return [*lines, entry("next", f"synth trace {version.version} --row {first} | --export rows.csv")]


def _row_text(session: Session, rows: pl.DataFrame, given: str) -> str:
    mine = rows.filter(pl.col("row_id").str.starts_with(given))
    if (row_ids := mine["row_id"].unique().to_list()) != [given] and len(row_ids) != 1:
        raise LineageError(
            f"{len(row_ids)} rows of this version begin with {given!r}; --export FILE lists them all, and "
            "`synth why ROW` tells about a row that it was not trained on"
        )
    lines = row_story(session.home, row_ids[0])
    present = {pair["pair_id"]: pair for pair in present_pairs(session.home, row_ids[0])}
    for trained in mine.to_dicts():
        lines.append(entry("trained", f"by {trained['trained']} as {trained['fate']}"))
        if pair_id := trained.get("pair_id"):
            lines += pair_lines(
                trained | {side: present[pair_id][side] for side in ("chosen", "rejected")}
                if pair_id in present
                else trained
            )
    return "\n".join(lines)


def _with_making(home: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with how each was made; null where nothing that is kept says so."""
    made = rows_made(home, rows["row_id"].unique().to_list()).select(MADE)
    told = [name for name in made.columns if name != "row_id" and name in rows.columns]
    joined = rows.join(made, on="row_id", how="left", suffix="_made", maintain_order="left")
    filled = [pl.coalesce(f"{name}_made", name).alias(name) for name in told]
    return joined.with_columns(filled).drop(f"{name}_made" for name in told)


def _has(rows: pl.DataFrame, name: str) -> bool:
    return name in rows.columns and rows[name].count() > 0


def _groups(rows: pl.DataFrame, name: str) -> str:
    counts = rows[name].cast(pl.String).fill_null("not recorded").value_counts(sort=True).rows()
    shown = ", ".join(f"{value} {count:,}" for value, count in counts[:SHOWN_GROUPS])
    return f"{shown}, and {len(counts) - SHOWN_GROUPS} more" if len(counts) > SHOWN_GROUPS else shown


def _spread(rows: pl.DataFrame, name: str) -> str:
    values = rows[name].drop_nulls()
    return f"{values.min():.3f} to {values.max():.3f}, mean {values.mean():.3f}, n {len(values):,}"
