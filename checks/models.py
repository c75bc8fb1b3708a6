"""Are the models the ones their records name, and does the reward model tell good from bad?"""

import json
import re

import dagster as dg
import numpy as np
import polars as pl

from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.reward import RewardModels
from synth_assets.evals.program_rewards import program_reward
from synth_assets.llm.model_files import PROGRAM, ModelFilesError, local_folder
from synth_assets.llm.prompt_formats import FAMILIES, check_template
from synth_assets.schemas.records import ModelRecord
from synth_assets.storage.manifests import folder_hash

COMMIT = re.compile(r"[0-9a-f]{40}")
PROBES = 256
MIN_PREFERRED_RATE = 0.7
"""Chance is .5, with a standard error of .03 at 256 probes.

The embedded reward model reaches .81. A deberta reward model given a chat template, which it never saw, ranks real
pairs at .52 instead of .91 to .96.
"""


def model_files_match(asset: str) -> dg.AssetChecksDefinition:
    """The check that one model is what its record names."""

    @dg.asset_check(asset=asset, name="model_files_match", blocking=True)
    def check(model: ModelRecord) -> dg.AssetCheckResult:
        """The folder's files hash to the revision; a hub model is pinned to a commit, not to a branch."""
        try:
            found = _present_revision(model)
        except ModelFilesError as error:
            found, passed = str(error), False
        else:
            passed = found == model.revision if found else COMMIT.fullmatch(model.revision) is not None
            found = found or "a hub repository"
        metadata = {"location": model.location, "revision": model.revision, "found": found}
        return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.ERROR, metadata=metadata)

    return check


def _present_revision(model: ModelRecord) -> str:
    """The revision that a model has now; empty for a hub repository, which is known by its commit."""
    if model.location.startswith(PROGRAM):
        return program_reward(model.location).revision
    folder = local_folder(model.location)
    return folder_hash(folder) if folder else ""


teacher_model_files_match = model_files_match("teacher_model")
base_model_files_match = model_files_match("base_model")
reward_model_files_match = model_files_match("reward_model")


@dg.asset_check(asset="teacher_model", blocking=True)
def teacher_opens_as_its_family(teacher_model: ModelRecord, inference: Inference) -> dg.AssetCheckResult:
    """The family's pre-query template is what the teacher's own tokenizer writes before a user's words.

    Its stop tokens are in the vocabulary too: a wrong row costs a GPU-hour of texts that are no instructions.
    """
    if teacher_model.family not in FAMILIES:
        found = f"no row {teacher_model.family!r} in synth_assets/llm/prompt_formats.py"
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.ERROR, description=found)
    row = FAMILIES[teacher_model.family]
    found = check_template(teacher_model.family, inference.tokenizer(teacher_model))
    return dg.AssetCheckResult(
        passed=found.fits,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "family": teacher_model.family,
            "pre_query": json.dumps(row.pre_query),
            "tokenizer_opens_with": json.dumps(found.derived),
            "missing_stop_tokens": ", ".join(found.missing_stops) or "none",
            "banned_first": ", ".join(found.banned) or "none",
            "row_compared_with": row.compared_with or "no real tokenizer before this one",
        },
    )


@dg.asset_check(
    asset="reward_model",
    blocking=True,
    additional_ins={"sft_dataset": dg.AssetIn("sft_dataset")},
    pool=GPU_POOL,
)
def reward_model_is_sane(
    reward_model: ModelRecord, sft_dataset: pl.LazyFrame, rewards: RewardModels
) -> dg.AssetCheckResult:
    """An instruction's own response outscores another's, in the template that pairs are scored with."""
    own, foreign = probes(sft_dataset)
    scores = rewards.load(reward_model).score([*own, *foreign])
    better = np.isfinite(scores[: len(own)]) & (scores[: len(own)] > scores[len(own) :])
    rate = float(better.mean()) if len(own) else 0.0
    return dg.AssetCheckResult(
        passed=bool(np.isfinite(scores).all()) and rate >= MIN_PREFERRED_RATE,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "own_response_preferred_rate": rate,
            "wanted": MIN_PREFERRED_RATE,
            "n": len(own),
            "not_finite": int((~np.isfinite(scores)).sum()),
        },
    )


def probes(rows: pl.LazyFrame) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(instruction, own response) and (instruction, foreign response) of at most PROBES rows, drawn by row id.

    Rows with earlier turns are left out, and those whose neighbour has the very same response.
    """
    drawn = (
        rows.filter(pl.col("history").list.len().fill_null(0) == 0)
        .select("instruction", "response", order=pl.col("row_id").hash())
        .bottom_k(PROBES, by="order")
        .sort("order")
        .with_columns(foreign=pl.col("response").shift(-1).fill_null(pl.col("response").first()))
        .filter(pl.col("foreign") != pl.col("response"))
        .collect()
    )
    own = list(zip(drawn["instruction"], drawn["response"], strict=True))
    return own, list(zip(drawn["instruction"], drawn["foreign"], strict=True))
