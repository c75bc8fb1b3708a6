"""Descriptions and metadata of the materialisations of the stage preference."""

from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from synth_assets.reporting.display_names import display_name
from synth_assets.reporting.escaping import escaped_sample
from synth_assets.schemas.preference_rounds import PreferenceRound
from synth_assets.stages.preference.candidates import CandidateSpec
from synth_assets.stages.preference.pairs import Pairs, PairSpec, length_bias

SAMPLE_ROWS = 5


def candidates_description(round_: PreferenceRound) -> str:
    """Return the description of the candidates of an on-policy round."""
    return (
        f"Several responses of the {display_name(round_.policy)} adapter to each training instruction, "
        "with their rewards.\n\nEmpty if the training of that adapter failed."
    )


def pairs_description(round_: PreferenceRound) -> str:
    """Return the description of the pairs of an on-policy round."""
    return (
        f"The best and the worst response of the {display_name(round_.policy)} adapter and the teacher to "
        "the same instruction, by reward margin; train and validation."
    )


def candidate_metadata(candidates: pl.LazyFrame, instructions: int, spec: CandidateSpec) -> dict[str, Any]:
    """Return the metadata of CANDIDATES that answer a number of instructions."""
    table = candidates.select("row_id", "reward", "temperature", "finish_reason", "response").collect()
    return {
        "dagster/row_count": table.height,
        "instructions": instructions,
        "unfinished_rate": table.filter(pl.col("finish_reason") == "length").height / max(table.height, 1),
        "reward_by_temperature": dg.MetadataValue.json(_mean_rewards(table)),
        "sample": dg.MetadataValue.md(escaped_sample(table.head(SAMPLE_ROWS).to_dicts())),
        "spec": dg.MetadataValue.json(asdict(spec)),
    }


def pair_metadata(built: Pairs, recalled: int, spec: PairSpec) -> dict[str, Any]:
    """Return the metadata of PAIRS with the reasons of dropped candidates and the number of recalled rows."""
    columns = ["instruction", "chosen", "rejected", "margin"]
    return {
        "dagster/row_count": built.pairs.height,
        "validation_rows": built.pairs.filter(pl.col("split") == "validation").height,
        "recalled_rows": recalled,
        **length_bias(built.pairs),
        "dropped": dg.MetadataValue.json(built.reasons.to_dicts()),
        "sample": dg.MetadataValue.md(escaped_sample(built.pairs.select(columns).head(SAMPLE_ROWS).to_dicts())),
        "spec": dg.MetadataValue.json(asdict(spec)),
    }


def _mean_rewards(table: pl.DataFrame) -> dict[str, float | None]:
    """Return the mean of finite rewards per temperature; None without any."""
    finite = table.filter(pl.col("reward").is_finite())
    means = finite.group_by("temperature").agg(pl.col("reward").mean()).sort("temperature")
    return {f"{temperature:g}": mean for temperature, mean in means.iter_rows()}
