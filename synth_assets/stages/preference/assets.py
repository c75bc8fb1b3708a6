"""Assets of the stage preference: response candidates and preference pairs, off-policy and on-policy."""

from typing import Any

import dagster as dg
import polars as pl

from resources.hardware import GPU_POOL
from resources.inference import Inference, LazyGenerator
from resources.reward import RewardModels
from resources.step_meter import StepMeter, step_meter
from resources.storage import SynthHome
from synth_assets.schemas.preference_rounds import ON_POLICY, PreferenceRound
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.stages.preference.candidates import (
    CANDIDATES_CODE_VERSION,
    ON_POLICY_CODE_VERSION,
    CandidateSpec,
    instructions_to_sample,
    policy_folder,
    sample_candidates,
    score_candidates,
)
from synth_assets.stages.preference.config import CandidateConfig, PairConfig
from synth_assets.stages.preference.metadata import (
    candidate_metadata,
    candidates_description,
    pair_metadata,
    pairs_description,
)
from synth_assets.stages.preference.pairs import (
    NO_IMPORTS,
    PAIRS_CODE_VERSION,
    Pairs,
    PairSpec,
    apply_retractions,
    build_pairs,
    drop_summary,
    limits_within,
    non_empty_pairs,
    row_fates,
)

CANDIDATE_DEFAULTS: Any = {
    "group_name": "preference",
    "kinds": {"transformers", "parquet"},
    "pool": GPU_POOL,
    "owners": ["team:data"],
}
PAIR_DEFAULTS: Any = {
    "group_name": "preference",
    "kinds": {"polars", "parquet"},
    "owners": ["team:data"],
    "code_version": PAIRS_CODE_VERSION,
}


@dg.asset(code_version=CANDIDATES_CODE_VERSION, **CANDIDATE_DEFAULTS)
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
    meter, spec = step_meter(context, inference.hardware.row(), config), config.spec_for(inference.hardware)
    teacher = inference.generator(teacher_model)
    return _candidate_result(context, (sft_dataset, spec), teacher, (rewards, reward_model), home, meter)


@dg.asset(**PAIR_DEFAULTS)
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
    meter, spec = step_meter(context, inference.hardware.row(), config), config.spec_for(inference.hardware)
    limits = limits_within(inference.token_limits(base_model), meter.budget)
    candidates, imported = (
        apply_retractions(rows.collect(), recalled_rows["row_id"])
        for rows in (response_candidates, filtered_preferences)
    )
    built = non_empty_pairs(build_pairs(candidates.kept, imported.kept, spec, limits))
    recalled = pl.concat([part.dropped.select("row_id") for part in (candidates, imported)])
    return _pair_result(context, built, recalled, spec, home, meter)


def candidates_asset(round_: PreferenceRound) -> dg.AssetsDefinition:
    """Return the asset of an on-policy round's candidates: responses of its policy."""

    @dg.asset(
        name=round_.candidates,
        ins={"policy": dg.AssetIn(round_.policy)},
        description=candidates_description(round_),
        code_version=ON_POLICY_CODE_VERSION,
        **CANDIDATE_DEFAULTS,
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
        spec = config.spec_for(inference.hardware, on_policy=True)
        folder = policy_folder(policy, home.root())
        if folder is None:
            context.log.error(f"Skipped: the training of {policy.name} failed: {policy.failure}")
            sft_dataset = sft_dataset.head(0)
        generator = inference.generator(base_model, folder)
        return _candidate_result(context, (sft_dataset, spec), generator, (rewards, reward_model), home, meter)

    return candidates  # pyright: ignore[reportReturnType] - the overload is lost behind **


def pairs_asset(round_: PreferenceRound) -> dg.AssetsDefinition:
    """Return the asset of an on-policy round's pairs: of its candidates and the teacher's responses."""

    @dg.asset(
        name=round_.pairs,
        ins={"own_candidates": dg.AssetIn(round_.candidates)},
        description=pairs_description(round_),
        **PAIR_DEFAULTS,
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
        meter, spec = step_meter(context, inference.hardware.row(), config), config.spec_for(inference.hardware)
        limits = limits_within(inference.token_limits(base_model), meter.budget)
        both = pl.concat([own_candidates.collect(), response_candidates.collect()])
        kept, dropped = apply_retractions(both, recalled_rows["row_id"])
        built = build_pairs(kept, NO_IMPORTS, spec, limits)
        return _pair_result(context, built, dropped.select("row_id"), spec, home, meter)

    return pairs  # pyright: ignore[reportReturnType] - the overload is lost behind **


def assets_of_round(round_: PreferenceRound) -> list[dg.AssetsDefinition]:
    """Return the assets of an on-policy round: the policy's candidates, and pairs with the teacher's responses."""
    return [candidates_asset(round_), pairs_asset(round_)]


PREFERENCE_ROUND_ASSETS = [definition for round_ in ON_POLICY for definition in assets_of_round(round_)]


def _candidate_result(
    context: dg.AssetExecutionContext,
    inputs: tuple[pl.LazyFrame, CandidateSpec],
    generator: LazyGenerator,
    reward: tuple[RewardModels, ModelRecord],
    home: SynthHome,
    meter: StepMeter,
) -> dg.MaterializeResult:
    """Sample and score the CANDIDATES of one model, in blocks that a rerun reuses."""
    (sft_rows, spec), folder, (rewards, reward_model) = inputs, home.shards("preference"), reward
    rows = instructions_to_sample(sft_rows, spec)
    sampled = sample_candidates(rows, generator, spec, folder, context.log.info, meter.budget)
    candidates = score_candidates(sampled.paths, rewards.load(reward_model), folder, context.log.info, meter.budget)
    metadata = candidate_metadata(candidates, rows.height, spec)
    metadata |= meter.writing_facts(sampled.new_tokens, generator.writing_s)
    fates = rows.select("row_id", fate=pl.lit("kept"))
    return home.table_result(context.asset_key.to_user_string(), candidates, metadata, fates)


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
    recalled = recalled.unique()
    metadata = pair_metadata(built, recalled.height, spec) | meter.facts()
    return home.table_result(context.asset_key.to_user_string(), built.pairs, metadata, row_fates(built, recalled))
