"""Assets of the stage filtering: kept and rejected rows, the SFT dataset with its splits, and the dataset card."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl

from resources.check_results import json_metadata, upstream_versions
from resources.hardware import Hardware
from resources.inference import Inference
from resources.spec_config import config_of
from resources.stage_runs import log_stages
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.registry.dataset_runs import log_dataset
from synth_assets.reporting.escaping import escaped_sample, first_sections
from synth_assets.reporting.figures import markdown_image, thumbnail
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.stages.filtering.apply import FilterResult, apply_filters
from synth_assets.stages.filtering.dataset_card import CardFacts, dataset_card
from synth_assets.stages.filtering.features import TokenLimits
from synth_assets.stages.filtering.pass_rates import markdown
from synth_assets.stages.filtering.preferences import (
    PREFERENCE_REASONS,
    PairContext,
    PreferenceFilterResult,
    filter_preferences,
)
from synth_assets.stages.filtering.report import (
    items_found,
    reasons_table,
    rejection_summary,
    sample,
    stats_figure,
)
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec, split
from synth_assets.storage.atomic import sweep_temporaries, write_bytes, write_text
from synth_assets.storage.manifests import content_hash
from synth_assets.storage.retractions import recall_reasons, recalls_in_force

SAMPLE_COLUMNS = ("reason", "detail", "score", "instruction", "response", "chosen", "rejected")


class FilterConfig(config_of(FilterSpec)):
    """Overrides of FilterSpec for one run."""


class SplitConfig(config_of(SplitSpec)):
    """Overrides of SplitSpec for one run."""


@dg.asset(group_name="filtering", kinds={"polars", "parquet"}, owners=["team:data"])
def recalled_rows(home: SynthHome) -> dg.MaterializeResult:
    """List rows recalled with `synth recall ROW`: they pass no filter, and no model trained on them is promoted."""
    rows = recalls_in_force(home.recalls())
    return dg.MaterializeResult(
        value=rows,
        data_version=dg.DataVersion(content_hash(rows)),
        metadata={"dagster/row_count": rows.height, "sample": dg.MetadataValue.md(escaped_sample(rows.to_dicts()))},
    )


@dg.multi_asset(
    outs={
        "filtered_instructions": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Rows that passed: one good row for each distinct task, no benchmark items, with a score.",
            code_version=fingerprint(FilterSpec(), [rule.reason for rule in RULES]),
        ),
        "rejected_instructions": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Rows that did not pass, each with its reason and the measured value.",
            code_version=fingerprint(FilterSpec(), [rule.reason for rule in RULES]),
        ),
    },
    group_name="filtering",
)
def filtered_instructions(
    context: dg.AssetExecutionContext,
    config: FilterConfig,
    raw_instructions: dict[str, pl.LazyFrame],
    imported_instructions: pl.LazyFrame,
    benchmark_items: pl.DataFrame,
    recalled_rows: pl.DataFrame,
    base_model: ModelRecord,
    hardware: Hardware,
    inference: Inference,
    home: SynthHome,
) -> Iterator[dg.MaterializeResult]:
    """Filter generated and imported rows: keep one row for each distinct task, record a reason for every other row."""
    spec = hardware.spec(FilterSpec(), config)
    batches = [raw_instructions[name] for name in sorted(raw_instructions)]
    rows = pl.concat([pl.LazyFrame(schema=INSTRUCTIONS), *batches, imported_instructions])
    base = TokenLimits(
        inference.count_tokens(base_model), base_model.context_tokens, inference.template_refusal(base_model)
    )
    with _scratch(home) as scratch:
        result = apply_filters(rows, benchmark_items, spec, base, scratch, recall_reasons(recalled_rows))
        context.log.info(rejection_summary(result.reasons, result.fates.height))
        yield from _results(("filtered_instructions", "rejected_instructions"), result, spec, home)


@dg.asset(
    group_name="filtering",
    kinds={"polars", "parquet"},
    owners=["team:data"],
    code_version=fingerprint(SplitSpec()),
)
def sft_dataset(
    config: SplitConfig, filtered_instructions: pl.LazyFrame, hardware: Hardware, home: SynthHome
) -> dg.MaterializeResult:
    """Split the filtered rows for supervised fine-tuning into train and validation by groups of similar tasks."""
    spec = hardware.spec(SplitSpec(), config)
    with _scratch(home) as scratch:
        rows = split(filtered_instructions, spec, scratch)
    version = content_hash(rows)
    sides = rows.select("row_id", "group", pl.col("split").alias("fate")).collect()
    home.leave_row_manifest("sft_dataset", version, sides.select("row_id", "fate"))
    counts = dict(sides["fate"].value_counts().iter_rows())
    return dg.MaterializeResult(
        value=rows,
        data_version=dg.DataVersion(version),
        metadata={
            "dagster/row_count": sides.height,
            "train_rows": counts.get("train", 0),
            "validation_rows": counts.get("validation", 0),
            "groups": sides["group"].n_unique(),
            "sample": dg.MetadataValue.md(sample(rows, ("split", "instruction", "response"))),
            "spec": dg.MetadataValue.json(asdict(spec)),
        },
    )


@dg.asset(
    name="dataset_card",
    group_name="filtering",
    kinds={"markdown", "mlflow"},
    owners=["team:data"],
    op_tags={"dagster/priority": "-1"},  # no other step reads the card, so that trainings start first
)
def dataset_card_asset(
    context: dg.AssetExecutionContext,
    sft_dataset: pl.LazyFrame,
    rejected_instructions: pl.LazyFrame,
    benchmark_items: pl.DataFrame,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Write the dataset card of sft_dataset, with a figure, and log it in MLflow."""
    versions = upstream_versions(context)
    specs = {
        asset: json_metadata(context.instance, asset, versions.get(asset, ""), "spec")
        for asset in ("filtered_instructions", "sft_dataset")
    }
    facts = CardFacts(versions["sft_dataset"], specs["filtered_instructions"], specs["sft_dataset"], versions)
    card = dataset_card(sft_dataset, rejected_instructions, benchmark_items, facts)
    folder = tracking.home.card("sft_dataset", facts.data_version)
    image = thumbnail(stats_figure(sft_dataset, rejected_instructions))
    write_text(folder / "README.md", card)
    write_bytes(folder / "filtering_stats.png", image)
    numbers = {"rows": _row_count(sft_dataset), "rejected_rows": _row_count(rejected_instructions)}
    tracker = tracking.tracker(context)
    run_id = log_dataset(tracker, "sft_dataset", facts.data_version, numbers, folder)
    log_stages(context, tracker, versions)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(fingerprint(card)),
        metadata={
            **numbers,
            "card": dg.MetadataValue.md(first_sections(card)),
            "path": tracking.home.relative(folder),
            "mlflow_run": dg.MetadataValue.url(tracking.run_url(run_id)),
        },
    )


@dg.multi_asset(
    outs={
        "filtered_preferences": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Imported pairs that passed, each with the group of similar instructions.",
            code_version=fingerprint(FilterSpec(), PREFERENCE_REASONS),
        ),
        "rejected_preferences": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Imported pairs that did not pass, each with its reason and the measured value.",
            code_version=fingerprint(FilterSpec(), PREFERENCE_REASONS),
        ),
    },
    group_name="filtering",
)
def filtered_preferences(
    context: dg.AssetExecutionContext,
    config: FilterConfig,
    imported_preferences: pl.LazyFrame,
    sft_dataset: pl.LazyFrame,
    benchmark_items: pl.DataFrame,
    base_model: ModelRecord,
    inference: Inference,
    home: SynthHome,
) -> Iterator[dg.MaterializeResult]:
    """Filter imported preference pairs: rules for both answers, duplicates, benchmark items, held-out instructions."""
    spec = inference.hardware.spec(FilterSpec(), config)
    context_of_pairs = PairContext(sft_dataset, benchmark_items, inference.hardware.spec(SplitSpec()).group_similarity)
    base = TokenLimits(
        inference.count_tokens(base_model), base_model.context_tokens, inference.template_refusal(base_model)
    )
    with _scratch(home) as scratch:
        result = filter_preferences(imported_preferences, context_of_pairs, spec, base, scratch)
        context.log.info(rejection_summary(result.reasons, result.fates.height))
        yield from _results(("filtered_preferences", "rejected_preferences"), result, spec, home)


def _results(
    names: tuple[str, str], result: FilterResult | PreferenceFilterResult, spec: FilterSpec, home: SynthHome
) -> Iterator[dg.MaterializeResult]:
    """Yield the kept and the rejected table, each with the manifest of all rows."""
    for name, table in zip(names, (result.kept, result.rejected), strict=True):
        version = content_hash(table)
        home.leave_row_manifest(name, version, result.fates)
        yield dg.MaterializeResult(
            asset_key=name,
            value=table,
            data_version=dg.DataVersion(version),
            metadata=_metadata(result, table, spec),
        )


@contextmanager
def _scratch(home: SynthHome) -> Iterator[Path]:
    """Create a folder for temporary files, after removing those of killed runs."""
    folder = home.shards("filtering")
    sweep_temporaries(folder)
    with TemporaryDirectory(dir=folder, prefix=".judging-") as scratch:
        yield Path(scratch)


def _metadata(
    result: FilterResult | PreferenceFilterResult, table: pl.LazyFrame, spec: FilterSpec
) -> Mapping[str, Any]:
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
        "spec": dg.MetadataValue.json(asdict(spec)),
        **({"benchmark_items_found": dg.MetadataValue.md(items_found(table))} if rejected else {}),
    }


def _figures(result: FilterResult | PreferenceFilterResult, *, rejected: bool) -> Mapping[str, Any]:
    """Return the figure of outcomes and the pass rates at other thresholds."""
    if rejected or not isinstance(result, FilterResult):
        return {}
    figure = stats_figure(result.kept, result.rejected)
    return {
        "filtering_stats": dg.MetadataValue.md(markdown_image("filtering stats", figure)),
        "pass_rates": dg.MetadataValue.md(markdown(result.pass_rates)),
    }


def _row_count(table: pl.LazyFrame) -> int:
    return table.select(pl.len()).collect().item()
