"""Assets of the stage evaluation: per-item scores of every model, and the comparison of all models."""

from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from resources.check_results import upstream_versions
from resources.evaluated_models import load_evaluated_model
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.reward import RewardModels
from resources.spec_config import config_of
from resources.step_meter import BudgetConfig, step_meter
from resources.tracking import MlflowTracking
from synth_assets.evals.guards import detectable_table
from synth_assets.evals.scoring import EvaluationSpec, metrics, score_model
from synth_assets.evals.unanswerable import count_unanswerable
from synth_assets.reporting.escaping import escaped_sample
from synth_assets.reporting.figures import benchmark_comparison, markdown_image
from synth_assets.schemas.preference_rounds import ON_POLICY
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint, to_json
from synth_assets.stages.evaluation.model_comparison import compare_models
from synth_assets.stages.evaluation.overlap import overlap_table, training_texts
from synth_assets.stages.evaluation.profiles import PreferenceSpec, profiles
from synth_assets.stages.evaluation.report import write_report
from synth_assets.stages.evaluation.report_data import ReportData, filter_outcomes, gather
from synth_assets.stages.evaluation.scoreboard import markdown_table, paired_tests_table
from synth_assets.stages.evaluation.trainings import traces
from synth_assets.stages.evaluation.writing_tally import WritingTally
from synth_assets.storage.manifests import content_hash
from synth_assets.training.methods import ADAPTERS

ADAPTER_INS = {name: dg.AssetIn(dagster_type=AdapterRecord) for name in ADAPTERS}
ON_POLICY_PAIRS_INS = {round_.pairs: dg.AssetIn(dagster_type=pl.LazyFrame) for round_ in ON_POLICY}
SCORING_VERSION = 1  # increment when the same answers would be scored differently


class EvaluationConfig(BudgetConfig, config_of(EvaluationSpec)):
    """Overrides of EvaluationSpec for one run."""


class ComparisonConfig(config_of(PreferenceSpec)):
    """Overrides of PreferenceSpec for one run."""


@dg.asset(
    ins=ADAPTER_INS,
    group_name="evaluation",
    kinds={"transformers", "parquet"},
    pool=GPU_POOL,
    owners=["team:evaluation"],
    code_version=fingerprint(SCORING_VERSION, EvaluationSpec()),
)
def benchmark_scores(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    base_model: ModelRecord,
    benchmark_items: pl.DataFrame,
    inference: Inference,
    tracking: MlflowTracking,
    **adapters: AdapterRecord,
) -> dg.MaterializeResult:
    """Score the base model and each adapter on every item; a failed adapter has no rows."""
    meter = step_meter(context, inference.hardware.row(), config)
    spec = inference.hardware.spec(EvaluationSpec(), config)
    options: Any = {"folder": tracking.home.shards("evaluation"), "progress": context.log.info, "budget": meter.budget}
    trained = [adapters[name] for name in ADAPTERS if not adapters[name].failure]
    models = [load_evaluated_model(inference, tracking.home, base_model, adapter) for adapter in (None, *trained)]
    tally = WritingTally()
    scores = pl.concat(score_model(tally.watched(model), benchmark_items, spec, **options) for model in models)
    engines = {model.name: model.engine for model in models}
    measured = metrics(scores, engines=engines, data_hash=content_hash(benchmark_items))
    versions = {adapter.name: adapter.model_version for adapter in trained}
    tracker = tracking.tracker(context)
    run_id = tracker.log_scores(measured, scores, versions)
    tracker.log_answers(run_id, scores, benchmark_items)
    failures = {adapter.name: adapter.failure for adapter in adapters.values() if adapter.failure}
    return dg.MaterializeResult(
        value=scores,
        data_version=dg.DataVersion(content_hash(scores)),
        metadata={
            "dagster/row_count": scores.height,
            **{f"{m.model}_{m.suite}_{m.metric}": m.value for m in measured if m.split == "test"},
            "profiles": dg.MetadataValue.json([asdict(profile) for profile in profiles(scores)]),
            **meter.writing_facts(tally.new_tokens, tally.writing_s),
            "unanswerable": dg.MetadataValue.json([asdict(counted) for counted in count_unanswerable(scores)]),
            "sample": dg.MetadataValue.md(_sample(scores, benchmark_items)),
            **({"failed": dg.MetadataValue.json(failures)} if failures else {}),
            "spec": dg.MetadataValue.json(asdict(spec)),
            "mlflow_run_id": run_id,
            "mlflow": dg.MetadataValue.url(tracking.run_url(run_id)),
        },
    )


@dg.asset(
    ins=ADAPTER_INS | ON_POLICY_PAIRS_INS,
    group_name="evaluation",
    kinds={"transformers", "json"},
    pool=GPU_POOL,
    owners=["team:evaluation"],
    code_version=fingerprint(SCORING_VERSION, PreferenceSpec()),
)
def comparison(
    context: dg.AssetExecutionContext,
    config: ComparisonConfig,
    benchmark_scores: pl.DataFrame,
    benchmark_items: pl.DataFrame,
    sft_dataset: pl.LazyFrame,
    preference_pairs: pl.LazyFrame,
    reward_model: ModelRecord,
    rewards: RewardModels,
    tracking: MlflowTracking,
    **upstream: Any,  # noqa: ANN401 - the adapters, and the pairs of on-policy rounds
) -> dg.MaterializeResult:
    """Compare all models with intervals, paired tests and a report; the candidate is the best on validation."""
    tracker, home = tracking.tracker(context), tracking.home
    meter = step_meter(context, rewards.hardware.row())
    run_id = tracker.scores_run(content_hash(benchmark_scores))
    if run_id is None:
        raise dg.Failure("MLflow has no run of these scores: materialise benchmark_scores again")
    measured = tracker.scored_metrics(run_id)
    adapters = [upstream[name] for name in ADAPTERS]
    pairs = [preference_pairs, *(upstream[name] for name in ON_POLICY_PAIRS_INS)]
    tables = benchmark_scores, benchmark_items
    compared = compare_models(
        measured,
        tables,
        adapters,
        training_texts(sft_dataset, pairs),
        lambda: rewards.load(reward_model),
        rewards.hardware.spec(PreferenceSpec(), config),
    )
    result = compared.comparison
    filter_version = upstream_versions(context).get("filtered_instructions", "")
    outcomes = filter_outcomes(home.manifests(), filter_version, sft_dataset)
    data = gather(result, adapters, tables, tracking.run_url, traces(adapters, home.root()), outcomes)
    data_version = fingerprint(to_json(result))
    folder = home.report(data_version)
    write_report(data, folder)
    tracker.attach(run_id, folder, "report")
    return dg.MaterializeResult(
        value=result,
        data_version=dg.DataVersion(data_version),
        metadata={
            "candidate": result.candidate or "none",
            "scores": dg.MetadataValue.md(markdown_table(result)),
            "paired_tests": dg.MetadataValue.md(f"```text\n{paired_tests_table(result.tests)}\n```"),
            "overlapping_items": len(compared.overlapping),
            **meter.facts(),
            **{f"{m.model}_{m.metric}": m.value for m in result.win_rates},
            "without_overlap": dg.MetadataValue.md(overlap_table(measured, result.without_overlap)),
            **_guard_metadata(data),
            "samples": dg.MetadataValue.md(escaped_sample(result.samples)),
            "figure": dg.MetadataValue.md(markdown_image("benchmark comparison", benchmark_comparison(result.metrics))),
            "report": home.page(folder / "report.html"),
            "mlflow": dg.MetadataValue.url(tracking.run_url(run_id)),
        },
    )


def _guard_metadata(data: ReportData) -> dict[str, dg.MetadataValue]:
    """Return the minimum detectable effect of each suite, and the candidate's guard results."""
    if not data.comparison.candidate:
        return {}
    return {
        "detectable": dg.MetadataValue.md(detectable_table(data.detectable)),
        "guards": dg.MetadataValue.json([asdict(guard) for guard in data.guards]),
    }


def _sample(scores: pl.DataFrame, items: pl.DataFrame) -> str:
    """Return each model's answer to the first item of the test split."""
    first = scores.filter(split="test").head(1).select("item_id", "metric")
    rows = scores.join(first, on=["item_id", "metric"], maintain_order="left")
    shown = rows.join(items.select("item_id", "prompt"), on="item_id", maintain_order="left")
    return escaped_sample(shown.select("model", "prompt", "response", "score").iter_rows(named=True))
