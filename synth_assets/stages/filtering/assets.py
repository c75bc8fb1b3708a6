"""Assets of the stage filtering: kept and rejected rows, the SFT dataset with its splits, and the dataset card."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from resources.check_results import json_metadata, upstream_versions
from resources.embeddings import Embeddings
from resources.inference import Inference
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.filtering.apply import (
    FILTER_CODE_VERSION,
    all_instructions,
    apply_filters,
    decisions_of_people,
)
from synth_assets.stages.filtering.config import FilterConfig, SplitConfig
from synth_assets.stages.filtering.dataset_card import CardFacts, log_card, measured_diversity
from synth_assets.stages.filtering.metadata import (
    card_metadata,
    filter_metadata,
    recall_metadata,
    review_metadata,
    split_metadata,
)
from synth_assets.stages.filtering.preferences import PREFERENCE_CODE_VERSION, PairContext, filter_preferences
from synth_assets.stages.filtering.split import SPLIT_CODE_VERSION, split


@dg.asset(group_name="filtering", kinds={"polars", "parquet"}, owners=["team:data"])
def recalled_rows(home: SynthHome) -> dg.MaterializeResult:
    """List rows recalled with `synth recall ROW`: they pass no filter, and no model trained on them is promoted."""
    rows = home.recalled_rows()
    return home.table_result("recalled_rows", rows, recall_metadata(rows))


@dg.asset(group_name="filtering", kinds={"polars", "parquet"}, owners=["team:data"])
def reviewed_rows(home: SynthHome) -> dg.MaterializeResult:
    """List rows that people kept, rejected or edited on the rows page: the last decision on each, with its author."""
    rows = home.reviewed_rows()
    return home.table_result("reviewed_rows", rows, review_metadata(rows, home.reviews()))


@dg.multi_asset(
    outs={
        "filtered_instructions": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Rows that passed: one good row for each distinct task, no benchmark items, with a score.",
            code_version=FILTER_CODE_VERSION,
        ),
        "rejected_instructions": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Rows that did not pass, each with its reason and the measured value.",
            code_version=FILTER_CODE_VERSION,
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
    reviewed_rows: pl.DataFrame,
    base_model: ModelRecord,
    inference: Inference,
    embeddings: Embeddings,
    home: SynthHome,
) -> Iterator[dg.MaterializeResult]:
    """Filter generated and imported rows: keep one row for each distinct task, record a reason for every other row."""
    spec, base = config.spec_for(inference.hardware), inference.token_limits(base_model)
    semantics, people = (
        config.semantics(embeddings, inference.hardware),
        decisions_of_people(recalled_rows, reviewed_rows),
    )
    rows = all_instructions(raw_instructions, imported_instructions)
    with home.scratch("filtering") as scratch:
        result = apply_filters(rows, benchmark_items, spec, base, scratch, people, semantics=semantics)
        context.log.info(result.summary())
        for name, table in (("filtered_instructions", result.kept), ("rejected_instructions", result.rejected)):
            metadata = filter_metadata(result, table, spec, semantics)
            yield home.table_result(name, table, metadata, result.fates)


@dg.asset(
    group_name="filtering",
    kinds={"polars", "parquet"},
    owners=["team:data"],
    code_version=SPLIT_CODE_VERSION,
)
def sft_dataset(
    config: SplitConfig, filtered_instructions: pl.LazyFrame, inference: Inference, home: SynthHome
) -> dg.MaterializeResult:
    """Split the filtered rows for supervised fine-tuning into train and validation by groups of similar tasks."""
    spec = config.spec_for(inference.hardware)
    with home.scratch("filtering") as scratch:
        rows = split(filtered_instructions, spec, scratch)
    fates = rows.select("row_id", pl.col("split").alias("fate")).collect()
    return home.table_result("sft_dataset", rows, split_metadata(rows, spec), fates)


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
    embeddings: Embeddings,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Write the dataset card of sft_dataset, with figures, and log it in MLflow."""
    versions = upstream_versions(context)
    filter_spec, split_spec = (
        json_metadata(context.instance, asset, versions.get(asset, ""), "spec")
        for asset in ("filtered_instructions", "sft_dataset")
    )
    diversity = measured_diversity(sft_dataset, embeddings.embedder())
    facts = CardFacts(versions["sft_dataset"], filter_spec, split_spec, versions, diversity)
    folder = tracking.home.card("sft_dataset", facts.data_version)
    tables = sft_dataset, rejected_instructions, benchmark_items
    tracker = tracking.tracker(context)
    card = log_card(tables, facts, tracker, folder)
    tracking.log_stages(context, tracker, versions)
    page = tracking.home.page(folder / "README.md")
    metadata = card_metadata(card, page, tracking.run_url(card.run_id))
    return tracking.home.record_result(None, card.data_version, metadata)


@dg.multi_asset(
    outs={
        "filtered_preferences": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Imported pairs that passed, each with the group of similar instructions.",
            code_version=PREFERENCE_CODE_VERSION,
        ),
        "rejected_preferences": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Imported pairs that did not pass, each with its reason and the measured value.",
            code_version=PREFERENCE_CODE_VERSION,
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
    embeddings: Embeddings,
    home: SynthHome,
) -> Iterator[dg.MaterializeResult]:
    """Filter imported preference pairs: rules for both answers, duplicates, benchmark items, held-out instructions."""
    hardware, base = inference.hardware, inference.token_limits(base_model)
    semantics = config.semantics(embeddings, hardware)
    similarity = SplitConfig().spec_for(hardware).group_similarity
    compared, spec = PairContext(sft_dataset, benchmark_items, similarity, semantics), config.spec_for(hardware)
    with home.scratch("filtering") as scratch:
        result = filter_preferences(imported_preferences, compared, spec, base, scratch)
        context.log.info(result.summary())
        for name, table in (("filtered_preferences", result.kept), ("rejected_preferences", result.rejected)):
            metadata = filter_metadata(result, table, spec, semantics)
            yield home.table_result(name, table, metadata, result.fates)
