"""The record of a trained reward model, and its run in MLflow."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl

from synth_assets.llm.protocols import RewardModel
from synth_assets.registry.dataset_runs import log_dataset
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.reward_training.accuracy import (
    CURRENT,
    LONGER,
    TrainedReward,
    accuracy_of,
    against_longer,
    numbers_of,
    score_pairs,
)
from synth_assets.stages.reward_training.pairs import HELD_OUT, TRAIN
from synth_assets.storage.manifests import folder_hash
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.specs import RewardSpec

ASSET = "trained_reward_model"


def data_version_of(stored: StoredAdapter) -> str:
    """Return the data version of a stored reward model: the hash of its files."""
    return folder_hash(stored.folder)


def measured_reward(
    request: tuple[RewardSpec, ModelRecord, pl.DataFrame],
    stored: StoredAdapter,
    models: tuple[RewardModel, RewardModel | None],
    keep: Callable[[str, str, pl.DataFrame], str],
    relative: Callable[[Path], str],
) -> TrainedReward:
    """Return the record of a stored reward model with its accuracies.

    Args:
        request: settings, base model, and the pairs with their `split`.
        stored: the reward model's files.
        models: the loaded reward model, and the one in use, if it is another one.
        keep: stores the row manifest of an asset's data version and returns its path below SYNTH_HOME.
        relative: returns a path relative to SYNTH_HOME.
    """
    spec, base, pairs = request
    trained, current = models
    scored = score_pairs(pairs, trained, current)
    return TrainedReward(
        fingerprint=stored.fingerprint,
        path=relative(stored.folder),
        pairs=keep(ASSET, data_version_of(stored), scored),
        manifest_sha256=stored.manifest_sha256,
        base=base.name,
        base_revision=base.revision,
        spec=asdict(spec),
        train=accuracy_of(scored, TRAIN),
        held_out=accuracy_of(scored, HELD_OUT),
        longer=accuracy_of(scored, HELD_OUT, LONGER),
        against_longer=against_longer(scored),
        current_model=current.model if current else "",
        current=accuracy_of(scored, HELD_OUT, CURRENT) if current else None,
    )


def log_trained_reward(tracker: MlflowTracker, record: TrainedReward, stored: StoredAdapter) -> TrainedReward:
    """Log accuracies and files to MLflow; return the record with the run."""
    outcome = stored.outcome
    facts = {"final_loss": outcome.final_loss, "seconds": outcome.seconds, "tokens_per_s": outcome.tokens_per_s}
    numbers = numbers_of(record) | facts
    return replace(record, mlflow_run_id=log_dataset(tracker, ASSET, data_version_of(stored), numbers, stored.folder))
