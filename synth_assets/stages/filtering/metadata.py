"""Metadata of the materialisations of the stage filtering."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from synth_assets.reporting.escaping import escaped, escaped_sample, first_sections
from synth_assets.reporting.figures import markdown_image
from synth_assets.stages.filtering.apply import FilterResult
from synth_assets.stages.filtering.dataset_card import LoggedCard
from synth_assets.stages.filtering.decisions import FilterOutcome
from synth_assets.stages.filtering.pass_rates import markdown
from synth_assets.stages.filtering.report import items_found, reasons_table, sample, stats_figure
from synth_assets.stages.filtering.semantic import Semantics, recorded_settings
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec
from synth_assets.stats.agreement import agreement_text, agreements
from synth_assets.storage.reviews import review_log, standing_reviews, verdicts_by_reviewer

SAMPLE_COLUMNS = ("reason", "detail", "score", "instruction", "response", "chosen", "rejected")


def recall_metadata(recalls: pl.DataFrame) -> dict[str, Any]:
    """Return the metadata of RECALLS."""
    sample = escaped_sample(recalls.to_dicts())
    return {"dagster/row_count": recalls.height, "sample": dg.MetadataValue.md(sample)}


def review_metadata(reviews: pl.DataFrame, log: Path) -> dict[str, Any]:
    """Return the metadata of REVIEWS, with the agreement of the reviewers in the review log."""
    pairs = agreements(verdicts_by_reviewer(standing_reviews(review_log(log))))
    return {
        "dagster/row_count": reviews.height,
        **{f"{verdict}_rows": reviews.filter(verdict=verdict).height for verdict in ("keep", "reject", "edit")},
        "agreement": dg.MetadataValue.md("\n".join(f"- {escaped(agreement_text(each))}" for each in pairs)),
        "sample": dg.MetadataValue.md(escaped_sample(reviews.to_dicts())),
    }


def filter_metadata(
    result: FilterOutcome, table: pl.LazyFrame, spec: FilterSpec, semantics: Semantics | None
) -> dict[str, Any]:
    """Return the metadata of the kept or the rejected table of a filter result."""
    columns = table.collect_schema().names()
    rejected = "reason" in columns
    total, kept = result.fates.height, result.fates.filter(fate="kept").height
    shown = [name for name in SAMPLE_COLUMNS if name in columns]
    return {
        **_figures(result, rejected=rejected),
        "dagster/row_count": total - kept if rejected else kept,
        "judged_rows": total,
        "pass_rate": kept / max(total, 1),
        "rejected_by_reason": dg.MetadataValue.md(reasons_table(result.reasons, total)),
        "sample": dg.MetadataValue.md(sample(table, shown)),
        "spec": dg.MetadataValue.json(recorded_settings(spec, semantics)),
        **({"benchmark_items_found": dg.MetadataValue.md(items_found(table))} if rejected else {}),
    }


def split_metadata(rows: pl.LazyFrame, spec: SplitSpec) -> dict[str, Any]:
    """Return the metadata of SFT_ROWS."""
    sides = rows.select("group", "split").collect()
    counts = dict(sides["split"].value_counts().iter_rows())
    return {
        "dagster/row_count": sides.height,
        "train_rows": counts.get("train", 0),
        "validation_rows": counts.get("validation", 0),
        "groups": sides["group"].n_unique(),
        "sample": dg.MetadataValue.md(sample(rows, ("split", "instruction", "response"))),
        "spec": dg.MetadataValue.json(asdict(spec)),
    }


def card_metadata(card: LoggedCard, page: dg.MetadataValue, run_url: str) -> dict[str, Any]:
    """Return the metadata of the dataset card, with the link to its page and the URL of its MLflow run."""
    return {
        **card.numbers,
        "card": dg.MetadataValue.md(first_sections(card.text)),
        **{name: dg.MetadataValue.md(image) for name, image in card.figures.items()},
        "page": page,
        "mlflow_run": dg.MetadataValue.url(run_url),
    }


def _figures(result: FilterOutcome, *, rejected: bool) -> dict[str, Any]:
    """Return the figure of outcomes and the pass rates at other thresholds."""
    if rejected or not isinstance(result, FilterResult):
        return {}
    figure = stats_figure(result.kept, result.rejected)
    return {
        "filtering_stats": dg.MetadataValue.md(markdown_image("filtering stats", figure)),
        "pass_rates": dg.MetadataValue.md(markdown(result.pass_rates)),
    }
