"""Asset of the stage reward_training: a reward model trained on preference pairs, measured on held-out pairs."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from resources.check_results import upstream_versions
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.reward import RewardModels
from resources.spec_config import config_of
from resources.step_meter import BudgetConfig, step_meter
from resources.tracking import MlflowTracking
from synth_assets.llm.model_files import PROGRAM, local_folder
from synth_assets.llm.protocols import RewardModel
from synth_assets.registry.dataset_runs import log_dataset
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.reward_training.accuracy import (
    CURRENT,
    LONGER,
    TrainedReward,
    accuracy_of,
    against_longer,
    numbers_of,
    score_pairs,
)
from synth_assets.stages.reward_training.pairs import HELD_OUT, TRAIN, split_pairs
from synth_assets.storage.manifests import folder_hash
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.budget import UNLIMITED, tighter
from synth_assets.training.plan import CHECKPOINT_EVERY_S, TrainingContext
from synth_assets.training.reward import REWARD, REWARD_VERSION, UNUSED_SETTINGS, train_or_load_reward
from synth_assets.training.specs import RewardSpec

ASSET = "trained_reward_model"
STORE = "reward_models"  # folder of SYNTH_HOME
HELD_OUT_SHARE = 0.2


class RewardTrainingConfig(BudgetConfig, config_of(RewardSpec, leave_out=UNUSED_SETTINGS)):
    """Settings of one training of a reward model."""

    held_out_share: float = Field(
        HELD_OUT_SHARE, gt=0, lt=1, description="Share of the pairs that measure the accuracy instead of training."
    )
    force: bool = Field(False, description="Train again although the reward model exists.")
    checkpoint_every_s: float = Field(CHECKPOINT_EVERY_S, ge=0, description="Seconds between checkpoints.")


@dg.asset(
    group_name="reward_training",
    kinds={"peft", "trl"},
    owners=["team:training"],
    pool=GPU_POOL,
    code_version=fingerprint(REWARD, REWARD_VERSION),
)
def trained_reward_model(
    context: dg.AssetExecutionContext,
    config: RewardTrainingConfig,
    filtered_preferences: pl.DataFrame,
    recalled_rows: pl.DataFrame,
    base_model: ModelRecord,
    inference: Inference,
    rewards: RewardModels,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Train a reward model on imported and collected pairs, and measure its accuracy on held-out pairs.

    `SYNTH_REWARD=home:reward_models/<fingerprint>` makes it the deployment's reward model.
    """
    spec, inference = inference.hardware.spec(RewardSpec(), config), inference.quantised("none")
    kept = filtered_preferences.join(recalled_rows.select("row_id"), on="row_id", how="anti", maintain_order="left")
    pairs = split_pairs(kept, config.held_out_share, spec.seed)
    request = spec, base_model, pairs.filter(split=TRAIN).drop("split")
    training = _training_context(context, config, inference, tracking)
    stored = train_or_load_reward(request, training, lambda: inference.load_base(base_model), force=config.force)
    current = _current_reward(inference, stored.folder)
    scored = score_pairs(
        pairs, _reward_in(stored.folder, inference, rewards), rewards.load(current) if current else None
    )
    record = _record(stored, scored, base_model, current, tracking)
    record = replace(record, spec=asdict(spec), data_versions=upstream_versions(context))
    return _result(context, record, stored, inference, tracking)


def _training_context(
    context: dg.AssetExecutionContext, config: RewardTrainingConfig, inference: Inference, tracking: MlflowTracking
) -> TrainingContext:
    home, tier = tracking.home, inference.hardware.limits()
    return TrainingContext(
        home.root(),
        home.root() / STORE,
        home.shards(STORE),
        tier,
        context.log.info,
        budget=tighter(UNLIMITED, step_meter(context, tier, config).budget.tightest()),
        checkpoint_every_s=config.checkpoint_every_s,
    )


def _reward_in(folder: Path, inference: Inference, rewards: RewardModels) -> RewardModel:
    """Load the reward model in a folder as SYNTH_REWARD would."""
    hardware = inference.hardware.model_copy(update={"reward": str(folder)})
    return rewards.load(inference.model_copy(update={"hardware": hardware}).resolve("reward"))


def _current_reward(inference: Inference, trained: Path) -> ModelRecord | None:
    """Return the reward model in use if it is on this machine and another one than the trained; else None."""
    location = inference.hardware.location("reward")
    if not location.startswith(PROGRAM) and local_folder(location) in (None, trained.resolve()):
        return None
    return inference.resolve("reward")


def _record(
    stored: StoredAdapter,
    scored: pl.DataFrame,
    base: ModelRecord,
    current: ModelRecord | None,
    tracking: MlflowTracking,
) -> TrainedReward:
    """Return the record with accuracies, storing the scored pairs."""
    return TrainedReward(
        fingerprint=stored.fingerprint,
        path=tracking.home.relative(stored.folder),
        pairs=tracking.home.leave_row_manifest(ASSET, folder_hash(stored.folder), scored),
        manifest_sha256=stored.manifest_sha256,
        base=base.name,
        base_revision=base.revision,
        spec={},
        train=accuracy_of(scored, TRAIN),
        held_out=accuracy_of(scored, HELD_OUT),
        longer=accuracy_of(scored, HELD_OUT, LONGER),
        against_longer=against_longer(scored),
        current_model=current.name if current else "",
        current=accuracy_of(scored, HELD_OUT, CURRENT) if current else None,
    )


def _result(
    context: dg.AssetExecutionContext,
    record: TrainedReward,
    stored: StoredAdapter,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Log the model to MLflow and return the result with metadata."""
    outcome, version = stored.outcome, folder_hash(stored.folder)
    numbers = numbers_of(record)
    facts = {"final_loss": outcome.final_loss, "seconds": outcome.seconds, "tokens_per_s": outcome.tokens_per_s}
    tracker = tracking.tracker(context, tier=inference.hardware.name())
    run_id = log_dataset(tracker, ASSET, version, numbers | facts, stored.folder)
    record = replace(record, mlflow_run_id=run_id)
    metadata: dict[str, Any] = {
        **numbers,
        **facts,
        "held_out": record.held_out.text(),
        "longer_is_better": record.longer.text(),
        **({"reward_model_in_use": f"{record.current_model}: {record.current.text()}"} if record.current else {}),
        "difference_from_longer_p_value": record.against_longer.p_value,
        "use": f"export SYNTH_REWARD={record.location}",
        "tokens": outcome.tokens,
        "steps": outcome.steps,
        "trained_before": stored.reused,
        "spec": dg.MetadataValue.json(dict(record.spec)),
        "events": dg.MetadataValue.json(outcome.events[-20:]),
        "mlflow": dg.MetadataValue.url(tracking.run_url(run_id)),
    }
    context.log.info(f"held-out accuracy {record.held_out.text()}; to use the model: {metadata['use']}")
    return dg.MaterializeResult(value=record, data_version=dg.DataVersion(version), metadata=metadata)
