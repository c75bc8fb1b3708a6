"""Assets of the stage preference: several responses to each training instruction, and pairs of a better and a worse."""

from dataclasses import asdict

import dagster as dg
import polars as pl

from resources.hardware import GPU_POOL, Hardware
from resources.inference import Inference
from resources.reward import RewardModels
from resources.storage import Home
from synth_assets.manifests import content_hash
from synth_assets.preference.candidates import (
    RECIPE,
    CandidateSpec,
    instructions_to_sample,
    sample_candidates,
    score_candidates,
)
from synth_assets.preference.pairs import PairSpec, Room, build_pairs, length_bias, reasons_text, take_back
from synth_assets.records import ModelRecord, fingerprint
from synth_assets.text_samples import escaped_sample

SAMPLE_ROWS = 5


class CandidateConfig(dg.Config):
    """Overrides of CandidateSpec for one run; what is left out comes from the tier and the spec."""

    instructions: int | None = None
    temperatures: list[float] | None = None
    top_p: float | None = None
    max_response_tokens: int | None = None
    seed: int | None = None


class PairConfig(dg.Config):
    """Overrides of PairSpec for one run; what is left out comes from the tier and the spec."""

    margin: float | None = None
    max_pairs: int | None = None
    strategy: str | None = None
    validation_share: float | None = None
    seed: int | None = None


@dg.asset(
    group_name="preference",
    kinds={"transformers", "parquet"},
    pool=GPU_POOL,
    owners=["team:data"],
    code_version=fingerprint(RECIPE, CandidateSpec()),
)
def response_candidates(
    context: dg.AssetExecutionContext,
    config: CandidateConfig,
    sft_dataset: pl.LazyFrame,
    teacher_model: ModelRecord,
    reward_model: ModelRecord,
    hardware: Hardware,
    inference: Inference,
    rewards: RewardModels,
    home: Home,
) -> dg.MaterializeResult:
    """Several responses of the teacher to each training instruction, one per temperature, with their rewards."""
    spec = hardware.spec(CandidateSpec(), config)
    folder = home.shards("preference")
    rows = instructions_to_sample(sft_dataset, spec)
    generator = inference.generator(teacher_model)
    sampled = sample_candidates(rows, generator, spec, folder, context.log.info)
    candidates = score_candidates(sampled.paths, rewards.load(reward_model), folder, context.log.info)
    table = candidates.select("row_id", "reward", "temperature", "finish_reason", "response").collect()
    version = content_hash(candidates)
    home.leave_row_manifest("response_candidates", version, rows.select("row_id", fate=pl.lit("kept")))
    return dg.MaterializeResult(
        value=candidates,
        data_version=dg.DataVersion(version),
        metadata={
            "dagster/row_count": table.height,
            "instructions": rows.height,
            "unfinished_rate": table.filter(pl.col("finish_reason") == "length").height / max(table.height, 1),
            "reward_by_temperature": dg.MetadataValue.json(_mean_rewards(table)),
            "sample": dg.MetadataValue.md(escaped_sample(table.head(SAMPLE_ROWS).to_dicts())),
            "new_tokens": sampled.new_tokens,
            **({"tokens_per_s": sampled.new_tokens / generator.writing_s} if sampled.new_tokens else {}),
            "spec": dg.MetadataValue.json(asdict(spec)),
        },
    )


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
    home: Home,
) -> dg.MaterializeResult:
    """A better and a worse response to the same instruction, by reward margin or as imported; train and validation."""
    spec = inference.hardware.spec(PairSpec(), config)
    room = Room(inference.count_tokens(base_model), base_model.context_tokens)
    candidates, imported = (
        take_back(rows.collect(), recalled_rows["row_id"]) for rows in (response_candidates, filtered_preferences)
    )
    built = build_pairs(candidates.kept, imported.kept, spec, room)
    context.log.info("dropped:\n%s", reasons_text(built.reasons))
    version = content_hash(built.pairs)
    taken_back = pl.concat([part.dropped.select("row_id", fate="reason") for part in (candidates, imported)]).unique()
    home.leave_row_manifest("preference_pairs", version, pl.concat([built.fates, taken_back]))
    columns = ["instruction", "chosen", "rejected", "margin"]
    return dg.MaterializeResult(
        value=built.pairs,
        data_version=dg.DataVersion(version),
        metadata={
            "dagster/row_count": built.pairs.height,
            "validation_rows": built.pairs.filter(pl.col("split") == "validation").height,
            "recalled_rows": taken_back.height,
            **length_bias(built.pairs),
            "dropped": dg.MetadataValue.json(built.reasons.to_dicts()),
            "sample": dg.MetadataValue.md(escaped_sample(built.pairs.select(columns).head(SAMPLE_ROWS).to_dicts())),
            "spec": dg.MetadataValue.json(asdict(spec)),
        },
    )


def _mean_rewards(table: pl.DataFrame) -> dict[str, float | None]:
    """Mean reward per temperature over the finite ones; None where there is none."""
    finite = table.filter(pl.col("reward").is_finite())
    means = finite.group_by("temperature").agg(pl.col("reward").mean()).sort("temperature")
    return {f"{temperature:g}": mean for temperature, mean in means.iter_rows()}
