"""Metadata of the materialisations of the stage generation."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from synth_assets.llm.roofline import Roofline
from synth_assets.reporting.escaping import escaped_sample
from synth_assets.stages.generation.imports import Imported
from synth_assets.stages.generation.spec import MagpieSpec

SAMPLE_ROWS = 5
SAMPLE_COLUMNS = ("instruction", "response", "chosen", "rejected")
MAX_REPORTS = 4  # keeps an event below a few kB


def batch_metadata(rows: pl.LazyFrame, spec: MagpieSpec) -> dict[str, Any]:
    """Return the metadata of a batch: counts, a sample and the settings."""
    return {**_counts(rows), "sample": _sample(rows), "spec": dg.MetadataValue.json(asdict(spec))}


def speed_metadata(tokens_per_s: float, bound: Roofline) -> dict[str, Any]:
    """Return tokens per second, also as a share of the roofline: the device's limit for a block of rows."""
    return {
        "tokens_per_s": tokens_per_s,
        "roofline_share": tokens_per_s / bound.tokens_per_s,
        "roofline": dg.MetadataValue.json(bound.facts()),
    }


def import_metadata(rows: pl.LazyFrame, row_count: int, imported: Sequence[Imported]) -> dict[str, Any]:
    """Return the metadata of a table of imported rows, with the reports of the first files."""
    reports = {each.report.name: each.report.facts() for each in imported[:MAX_REPORTS]}
    return {
        "dagster/row_count": row_count,
        "files": len(imported),
        "rejected": sum(each.report.rejected.total() for each in imported),
        "sample": _sample(rows),
        "reports": dg.MetadataValue.json(reports),
    }


def _counts(rows: pl.LazyFrame) -> dict[str, Any]:
    """Return row count, distinct rate, finish reasons, lengths, and the distribution of topics and turns."""
    reasons = ("instruction_finish_reason", "response_finish_reason")
    lengths = ("instruction_tokens", "response_tokens", "history_tokens")
    exchanges = (pl.col("history").list.len() // 2 + 1).cast(pl.String).alias("exchanges")
    frame = rows.select("instruction", "topic", *reasons, *lengths, exchanges).collect()
    measures = {"mean": pl.Series.mean, "max": pl.Series.max, "all": pl.Series.sum}
    tokens = {name: {word: of(frame[name]) for word, of in measures.items()} for name in lengths}
    return {
        "dagster/row_count": frame.height,
        "distinct_instructions_rate": frame["instruction"].n_unique() / max(frame.height, 1),
        "finish_reasons": dg.MetadataValue.json({name: _mix(frame[name], "not asked") for name in reasons}),
        "tokens": dg.MetadataValue.json(tokens),
        "topics": dg.MetadataValue.json(_mix(frame["topic"], "none")),
        "exchanges": dg.MetadataValue.json(_mix(frame["exchanges"], "none")),
    }


def _mix(values: pl.Series, absent: str) -> dict[str, int]:
    return dict(values.fill_null(absent).value_counts(sort=True).iter_rows())


def _sample(rows: pl.LazyFrame) -> dg.MarkdownMetadataValue:
    columns = [name for name in SAMPLE_COLUMNS if name in rows.collect_schema()]
    return dg.MetadataValue.md(escaped_sample(rows.select(columns).head(SAMPLE_ROWS).collect().to_dicts()))
