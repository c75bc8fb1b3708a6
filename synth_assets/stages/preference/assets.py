"""Assets of the stage preference: response candidates and preference pairs, off-policy and on-policy."""

from collections.abc import Sequence
from dataclasses import asdict

import dagster as dg
import polars as pl

from resources.asset_metadata import presented
from resources.hardware import GPU_POOL
from resources.inference import Inference, LazyGenerator
from resources.reward import RewardModels
from resources.spec_config import config_of
from resources.step_meter import BudgetConfig, StepMeter, step_meter
from resources.storage import SynthHome
from synth_assets.llm.protocols import RewardModel
from synth_assets.reporting.display_names import display_name
from synth_assets.reporting.escaping import escaped_sample
from synth_assets.schemas.preference_rounds import ON_POLICY, PreferenceRound
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import PAIRS
from synth_assets.stages.preference.candidates import (
    SAMPLING_VERSION,
    CandidateSpec,
    OnPolicyCandidateSpec,
    instructions_to_sample,
    sample_candidates,
    score_candidates,
)
from synth_assets.stages.preference.pairs import (
    ContextWindow,
    Pairs,
    PairSpec,
    apply_retractions,
    build_pairs,
    drop_summary,
    length_bias,
    non_empty_pairs,
)
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.manifests import content_hash, read_manifest
from synth_assets.storage.retractions import RECALLED

SAMPLE_ROWS = 5


class CandidateConfig(BudgetConfig, config_of(CandidateSpec)):
    """Overrides of CandidateSpec for one run."""


class PairConfig(BudgetConfig, config_of(PairSpec, leave_out=["template_tokens"])):
    """Overrides of PairSpec for one run."""


@dg.asset(
    group_name="preference",
    kinds={"transformers", "parquet"},
    pool=GPU_POOL,
    owners=["team:data"],
    code_version=fingerprint(SAMPLING_VERSION, CandidateSpec()),
)
def response_candidates(
    context: dg.AssetExecutionContext,
    config: CandidateConfig,
    sft_dataset: pl.LazyFrame,
    teacher_model: ModelRecord,
    reward_model: ModelRecord,
    inference: Inference,
    rewards: RewardModels,
    home: SynthHome,
) -> dg.MaterializeResult:
    """Sample responses of the teacher to each training instruction, one per temperature, and score them."""
    meter = step_meter(context, inference.hardware.row(), config)
    spec = inference.hardware.spec(CandidateSpec(), config)
    teacher = inference.generator(teacher_model)
    return _candidate_result(context, (sft_dataset, spec), teacher, rewards.load(reward_model), home, meter)


@dg.asset(
    group_name="preference",
    kinds={"polars", "parquet"},
    owners=["team:data"],
    code_version=fingerprint(PairSpec()),
)
def preference_pairs(
    context: dg.AssetExecutionContext,
    config: PairConfig,
    response_candidates: pl.LazyFrame,
    filtered_preferences: pl.LazyFrame,
    recalled_rows: pl.DataFrame,
    base_model: ModelRecord,
    inference: Inference,
    home: SynthHome,
) -> dg.MaterializeResult:
    """Build preference pairs by reward margin, add imported pairs, and split them into train and validation."""
    meter = step_meter(context, inference.hardware.row(), config)
    spec = inference.hardware.spec(PairSpec(), config)
    window = _context_window(inference, base_model, meter.budget)
    candidates, imported = (
        apply_retractions(rows.collect(), recalled_rows["row_id"])
        for rows in (response_candidates, filtered_preferences)
    )
    built = non_empty_pairs(build_pairs(candidates.kept, imported.kept, spec, window))
    recalled = pl.concat([part.dropped.select("row_id") for part in (candidates, imported)])
    return _pair_result(context, built, recalled, spec, home, meter)


def assets_of_round(round_: PreferenceRound) -> list[dg.AssetsDefinition]:
    """Return the assets of an on-policy round: the policy's candidates, and pairs with the teacher's responses."""

    @dg.asset(
        name=round_.candidates,
        ins={"policy": dg.AssetIn(round_.policy)},
        description=f"Several responses of the {display_name(round_.policy)} adapter to each training instruction, "
        "with their rewards.\n\nEmpty if the training of that adapter failed.",
        code_version=fingerprint(SAMPLING_VERSION, OnPolicyCandidateSpec()),
        group_name="preference",
        kinds={"transformers", "parquet"},
        pool=GPU_POOL,
        owners=["team:data"],
    )
    def candidates(
        context: dg.AssetExecutionContext,
        config: CandidateConfig,
        sft_dataset: pl.LazyFrame,
        policy: AdapterRecord,
        base_model: ModelRecord,
        reward_model: ModelRecord,
        inference: Inference,
        rewards: RewardModels,
        home: SynthHome,
    ) -> dg.MaterializeResult:
        meter = step_meter(context, inference.hardware.row(), config)
        spec = inference.hardware.spec(OnPolicyCandidateSpec(), config)
        folder = home.root() / policy.path
        if policy.failure:
            context.log.error(f"Skipped: the training of {policy.name} failed: {policy.failure}")
            sft_dataset, folder = sft_dataset.head(0), None
        else:
            read_manifest(folder)
        generator = inference.generator(base_model, folder)
        return _candidate_result(context, (sft_dataset, spec), generator, rewards.load(reward_model), home, meter)

    @dg.asset(
        name=round_.pairs,
        ins={"own_candidates": dg.AssetIn(round_.candidates)},
        description=f"The best and the worst response of the {display_name(round_.policy)} adapter and the teacher to "
        "the same instruction, by reward margin; train and validation.",
        code_version=fingerprint(PairSpec()),
        group_name="preference",
        kinds={"polars", "parquet"},
        owners=["team:data"],
    )
    def pairs(
        context: dg.AssetExecutionContext,
        config: PairConfig,
        own_candidates: pl.LazyFrame,
        response_candidates: pl.LazyFrame,
        recalled_rows: pl.DataFrame,
        base_model: ModelRecord,
        inference: Inference,
        home: SynthHome,
    ) -> dg.MaterializeResult:
        meter = step_meter(context, inference.hardware.row(), config)
        spec = inference.hardware.spec(PairSpec(), config)
        window = _context_window(inference, base_model, meter.budget)
        both = pl.concat([own_candidates.collect(), response_candidates.collect()])
        kept, dropped = apply_retractions(both, recalled_rows["row_id"])
        built = build_pairs(kept, PAIRS.to_frame(), spec, window)
        return _pair_result(context, built, dropped.select("row_id"), spec, home, meter)

    return [candidates, pairs]


PREFERENCE_ROUND_ASSETS = [definition for round_ in ON_POLICY for definition in assets_of_round(round_)]


def _candidate_result(
    context: dg.AssetExecutionContext,
    inputs: tuple[pl.LazyFrame, CandidateSpec],
    generator: LazyGenerator,
    reward: RewardModel,
    home: SynthHome,
    meter: StepMeter,
) -> dg.MaterializeResult:
    """Sample and score the CANDIDATES of one model, in blocks that a rerun reuses."""
    (sft_rows, spec), folder, name = inputs, home.shards("preference"), context.asset_key.to_user_string()
    rows = instructions_to_sample(sft_rows, spec)
    sampled = sample_candidates(rows, generator, spec, folder, context.log.info, meter.budget)
    candidates = score_candidates(sampled.paths, reward, folder, context.log.info, meter.budget)
    table = candidates.select("row_id", "reward", "temperature", "finish_reason", "response").collect()
    version = content_hash(candidates)
    home.leave_row_manifest(name, version, rows.select("row_id", fate=pl.lit("kept")))
    return dg.MaterializeResult(
        value=candidates,
        data_version=dg.DataVersion(version),
        metadata=presented(
            {
                "dagster/row_count": table.height,
                "instructions": rows.height,
                "unfinished_rate": table.filter(pl.col("finish_reason") == "length").height / max(table.height, 1),
                "reward_by_temperature": dg.MetadataValue.json(_mean_rewards(table)),
                "sample": dg.MetadataValue.md(escaped_sample(table.head(SAMPLE_ROWS).to_dicts())),
                **meter.writing_facts(sampled.new_tokens, generator.writing_s),
                "spec": dg.MetadataValue.json(asdict(spec)),
            }
        ),
    )


def _context_window(inference: Inference, base: ModelRecord, budget: WorkBudget) -> ContextWindow:
    """Return the base's context window; every token count checks the budget first."""
    count = inference.count_tokens(base)

    def count_within_budget(texts: Sequence[str]) -> list[int]:
        budget.check("No pair is stored yet")
        return count(texts)

    return ContextWindow(count_within_budget, base.context_tokens, inference.template_refusal(base))


def _pair_result(
    context: dg.AssetExecutionContext,
    built: Pairs,
    recalled: pl.DataFrame,
    spec: PairSpec,
    home: SynthHome,
    meter: StepMeter,
) -> dg.MaterializeResult:
    """Return the PAIRS with the reasons of dropped candidates, including recalled rows."""
    context.log.info(drop_summary(built.reasons))
    version = content_hash(built.pairs)
    recalled_rows = recalled.unique().with_columns(fate=pl.lit(RECALLED))
    name = context.asset_key.to_user_string()
    home.leave_row_manifest(name, version, pl.concat([built.fates, recalled_rows]))
    columns = ["instruction", "chosen", "rejected", "margin"]
    return dg.MaterializeResult(
        value=built.pairs,
        data_version=dg.DataVersion(version),
        metadata=presented(
            {
                "dagster/row_count": built.pairs.height,
                "validation_rows": built.pairs.filter(pl.col("split") == "validation").height,
                "recalled_rows": recalled_rows.height,
                **length_bias(built.pairs),
                **meter.facts(),
                "dropped": dg.MetadataValue.json(built.reasons.to_dicts()),
                "sample": dg.MetadataValue.md(escaped_sample(built.pairs.select(columns).head(SAMPLE_ROWS).to_dicts())),
                "spec": dg.MetadataValue.json(asdict(spec)),
            }
        ),
    )


def _mean_rewards(table: pl.DataFrame) -> dict[str, float | None]:
    """Return the mean of finite rewards per temperature; None without any."""
    finite = table.filter(pl.col("reward").is_finite())
    means = finite.group_by("temperature").agg(pl.col("reward").mean()).sort("temperature")
    return {f"{temperature:g}": mean for temperature, mean in means.iter_rows()}
