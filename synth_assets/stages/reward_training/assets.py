"""Asset of the stage reward_training: a reward model trained on preference pairs, measured on held-out pairs."""

from dataclasses import replace

import dagster as dg
import polars as pl

from resources.check_results import upstream_versions
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.reward import RewardModels, compared_rewards
from resources.tracking import MlflowTracking
from resources.training import trainer
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.reward_training.config import RewardTrainingConfig
from synth_assets.stages.reward_training.metadata import reward_metadata
from synth_assets.stages.reward_training.pairs import split_pairs, training_pairs, without_recalled
from synth_assets.stages.reward_training.record import data_version_of, log_trained_reward, measured_reward
from synth_assets.training.reward import REWARD_CODE_VERSION, train_or_load_reward

STORE = "reward_models"  # folder of SYNTH_HOME


@dg.asset(
    group_name="reward_training",
    kinds={"peft", "trl"},
    owners=["team:training"],
    pool=GPU_POOL,
    code_version=REWARD_CODE_VERSION,
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
    home, spec, inference = tracking.home, config.spec_for(inference.hardware), inference.quantised("none")
    pairs = split_pairs(without_recalled(filtered_preferences, recalled_rows), config.held_out_share, spec.seed)
    training = trainer(context, inference, home, config).context
    training = replace(training, store=home.root() / STORE, shards=home.shards(STORE))
    request = spec, base_model, training_pairs(pairs)
    stored = train_or_load_reward(request, training, lambda: inference.load_base(base_model), force=config.force)
    models = compared_rewards(stored.folder, inference, rewards)
    record = measured_reward((spec, base_model, pairs), stored, models, home.leave_row_manifest, home.relative)
    record = replace(record, data_versions=upstream_versions(context))
    record = log_trained_reward(tracking.tracker(context, tier=inference.hardware.name()), record, stored)
    context.log.info(f"held-out accuracy {record.held_out.text()}; to use it: SYNTH_REWARD={record.location}")
    metadata = reward_metadata(record, stored, tracking.run_url(record.mlflow_run_id))
    return home.record_result(record, data_version_of(stored), metadata)
