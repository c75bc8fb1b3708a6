"""`synth trace`: trace a version of the registered model back to its training rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.cli.rows import GENERATION_COLUMNS, entry, generated_rows, pair_lines, present_pairs, row_story
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

MAX_SHOWN_GROUPS = 6
GROUP_COLUMNS = {
    "batch": "batch",
    "source": "source",
    "model": "model",
    "T asked": "temperature",
    "T answer": "response_temperature",
}
NUMBER_COLUMNS = {"score": "score", "chosen": "chosen_reward", "rejected": "rejected_reward", "margin": "margin"}
WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".csv": lambda rows, path: rows.write_csv(path),
    ".jsonl": lambda rows, path: rows.write_ndjson(path),
    ".parquet": lambda rows, path: rows.write_parquet(path),
}


def trace_text(session: Session, name: str, row: str | None, export: Path | None) -> str:
    """Describe the training rows of a version: summary counts or one row; optionally export all of them.

    Args:
        session: the deployment.
        name: number of a version, an alias, or the name of an adapter asset.
        row: a row id or the beginning of one, to describe this row instead of the counts.
        export: a .csv, .jsonl or .parquet file for all rows of all trainings, without their texts.

    Raises:
        LineageError: the version or row does not exist, or its manifests are missing.
        ValueError: the file has another suffix.
    """
    if export is not None and export.suffix not in WRITERS:
        raise ValueError(f"--export must be a file that ends in {', '.join(WRITERS)}, got {export.name}")
    version = find_version(session, name)
    rows = training_rows(session.storage.manifests(), version)
    lines = [entry("version", version.title)]
    lines += [_row_text(session, rows, row)] if row else _summary(session, version, rows)
    if export is not None:
        table = _with_generation(session.home, rows)
        write_atomically(export.absolute(), lambda temporary: WRITERS[export.suffix](table, temporary))
        lines.append(entry("written", f"{table.height:,} rows to {export}"))
    return "\n".join(lines)


def find_version(session: Session, name: str) -> ModelVersion:
    """Return the version with this number or alias, or the current one of this adapter asset.

    Raises:
        LineageError: there is no such version.
    """
    number = version_of(session, name)
    try:
        return model_version(_tracker(session, name), number)
    except KeyError as error:
        raise LineageError(str(error.args[0])) from None


def version_of(session: Session, name: str) -> str:
    """Return the number of the version with this number, alias or adapter asset.

    Raises:
        LineageError: there is no such version, or no adapter asset registered it; the message lists the versions.
    """
    records = {asset: session.record(asset, AdapterRecord) for asset in ADAPTERS}
    newest = {asset: record.model_version for asset, record in records.items() if record}
    try:
        return version_number(_tracker(session, name), name, newest)
    except VersionError as error:
        raise LineageError(str(error)) from None


def _tracker(session: Session, name: str) -> MlflowTracker:
    if session.tracker is None:
        raise LineageError(
            f"there is no version {terminal_line(name)!r}: nothing was registered yet; run `synth run` first"
        )
    return session.tracker


def _summary(session: Session, version: ModelVersion, rows: pl.DataFrame) -> list[str]:
    generated = _with_generation(session.home, rows)
    upstream = {name: data for name, data in version.data_versions.items() if "@" not in name}
    lines = [
        entry("from", ", ".join(f"{name} {data[:16]}" for name, data in sorted(upstream.items()))),
        entry("rows", f"{rows['row_id'].n_unique():,} in all"),
    ]
    for asset, data_version in version.trainings():
        part = rows.filter(trained=asset)
        sides = ", ".join(f"{count:,} {fate}" for fate, count in part["fate"].value_counts(sort=True).iter_rows())
        lines.append(entry("", f"{sides} {'pairs' if _has(part, 'pair_id') else 'rows'} by {asset} {data_version}"))
    distinct = generated.unique("row_id", keep="first", maintain_order=True)
    lines += [entry(label, _groups(distinct, name)) for label, name in GROUP_COLUMNS.items()]
    lines += [entry(label, _spread(rows, name)) for label, name in NUMBER_COLUMNS.items() if _has(rows, name)]
    recalls = recalls_in_force(session.storage.recalls())
    taint = taint_text(recalled_rows_of(session.storage.manifests(), version, recalls))
    lines.append(entry("tainted", terminal_line(taint, 1_000) or "no, none of its rows was recalled"))
    first = rows["row_id"][0]
    return [*lines, entry("next", f"synth trace {version.version} --row {first} | --export rows.csv")]


def _row_text(session: Session, rows: pl.DataFrame, prefix: str) -> str:
    matches = rows.filter(pl.col("row_id").str.starts_with(prefix))
    if (row_ids := matches["row_id"].unique().to_list()) != [prefix] and len(row_ids) != 1:
        raise LineageError(
            f"one row of this version must begin with {prefix!r}, got {len(row_ids)}. --export FILE lists them all; "
            "`synth why ROW` explains a row of another version"
        )
    lines = row_story(session.home, row_ids[0])
    pairs = {pair["pair_id"]: pair for pair in present_pairs(session.home, row_ids[0])}
    for trained in matches.to_dicts():
        lines.append(entry("trained", f"by {trained['trained']} as {trained['fate']}"))
        if pair_id := trained.get("pair_id"):
            lines += pair_lines(
                trained | {side: pairs[pair_id][side] for side in ("chosen", "rejected")}
                if pair_id in pairs
                else trained
            )
    return "\n".join(lines)


def _with_generation(home: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """Add the generation columns to the rows; null if no stored table has the row."""
    generated = generated_rows(home, rows["row_id"].unique().to_list()).select(GENERATION_COLUMNS)
    shared = [name for name in generated.columns if name != "row_id" and name in rows.columns]
    joined = rows.join(generated, on="row_id", how="left", suffix="_made", maintain_order="left")
    filled = [pl.coalesce(f"{name}_made", name).alias(name) for name in shared]
    return joined.with_columns(filled).drop(f"{name}_made" for name in shared)


def _has(rows: pl.DataFrame, name: str) -> bool:
    return name in rows.columns and rows[name].count() > 0


def _groups(rows: pl.DataFrame, name: str) -> str:
    counts = rows[name].cast(pl.String).fill_null("not recorded").value_counts(sort=True).rows()
    shown = ", ".join(f"{value} {count:,}" for value, count in counts[:MAX_SHOWN_GROUPS])
    return f"{shown}, and {len(counts) - MAX_SHOWN_GROUPS} more" if len(counts) > MAX_SHOWN_GROUPS else shown


def _spread(rows: pl.DataFrame, name: str) -> str:
    values = rows[name].drop_nulls()
    return f"{values.min():.3f} to {values.max():.3f}, mean {values.mean():.3f}, n {len(values):,}"
