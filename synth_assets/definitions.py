"""Composition root: combine assets, checks, jobs and automation with the resources of a deployment."""

import functools
import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

import checks.adapters
import checks.benchmarks
import checks.efficiency
import checks.evaluation
import checks.export
import checks.filtering
import checks.generation
import checks.models
import checks.preference
import checks.promotion
import checks.reward_training
import synth_assets.stages.adapters.assets
import synth_assets.stages.benchmarks.assets
import synth_assets.stages.efficiency.assets
import synth_assets.stages.evaluation.assets
import synth_assets.stages.export.assets
import synth_assets.stages.filtering.assets
import synth_assets.stages.generation.assets
import synth_assets.stages.models.assets
import synth_assets.stages.preference.assets
import synth_assets.stages.promotion.assets
import synth_assets.stages.reward_training.assets
from resources.check_results import CheckResults
from resources.deployment import DEPLOYMENT_VARIABLES, home_folder, set_up_process
from resources.embeddings import Embeddings
from resources.hardware import MODEL_VARIABLES, TIERS, Hardware, deployed
from resources.inference import Inference
from resources.reward import RewardModels
from resources.storage import AssetStorage, SynthHome
from resources.tracking import MlflowTracking
from resources.webhook import Webhook
from synth_assets.orchestration import jobs, sensors
from synth_assets.orchestration.run_validation import check_settings

STAGES = [
    synth_assets.stages.models.assets,
    synth_assets.stages.generation.assets,
    synth_assets.stages.benchmarks.assets,
    synth_assets.stages.filtering.assets,
    synth_assets.stages.preference.assets,
    synth_assets.stages.adapters.assets,
    synth_assets.stages.evaluation.assets,
    synth_assets.stages.promotion.assets,
    synth_assets.stages.efficiency.assets,
    synth_assets.stages.reward_training.assets,
    synth_assets.stages.export.assets,
]
STAGE_NAMES = tuple(stage.__name__.split(".")[-2] for stage in STAGES)
"""The names of the stages, which are the groups of their assets, in the order of the pipeline."""
CHECKS = [
    checks.models,
    checks.generation,
    checks.benchmarks,
    checks.filtering,
    checks.preference,
    checks.adapters,
    checks.evaluation,
    checks.promotion,
    checks.efficiency,
    checks.reward_training,
    checks.export,
]


def deployment_resources() -> dict[str, Any]:
    """Return the resources of this deployment, configured by environment variables."""
    hardware = Hardware(**_set({"tier": "SYNTH_TIER", **MODEL_VARIABLES}))
    home = SynthHome(folder=str(home_folder()), **_set({"benchmark_folder": "SYNTH_BENCHMARKS"}))
    return {
        "hardware": hardware,
        "home": home,
        "inference": Inference(hardware=hardware),
        "embeddings": Embeddings(home=home, **_set({"embedder_name": "SYNTH_EMBEDDER"})),
        "rewards": RewardModels(hardware=hardware),
        "tracking": MlflowTracking(home=home, **_set({"tracking_uri": "MLFLOW_TRACKING_URI"})),
        "webhook": Webhook(**_set({"url": "SYNTH_WEBHOOK_URL"})),
        "io_manager": AssetStorage(home=home),
    }


def _set(variables: Mapping[str, str]) -> dict[str, Any]:
    """Map fields to dg.EnvVar for the variables that are set; a run fails on an EnvVar that is not set."""
    return {field: dg.EnvVar(name) for field, name in variables.items() if os.environ.get(name)}


def build_definitions(resources: Mapping[str, Any], executor: dg.ExecutorDefinition | None = None) -> dg.Definitions:
    """Build the definitions of all assets, checks, jobs and automation with the given resources."""
    assets = dg.load_assets_from_modules(STAGES)
    asset_checks = dg.load_asset_checks_from_modules(CHECKS)
    return dg.Definitions(
        assets=assets,
        asset_checks=asset_checks,
        jobs=[jobs.pipeline, jobs.all_methods, jobs.study, jobs.reward, jobs.promote, jobs.export_champion],
        schedules=sensors.SCHEDULES,
        sensors=sensors.SENSORS,
        resources={"evidence": CheckResults.of([*assets, *asset_checks]), **resources},
        executor=executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that `dagster dev` and `synth` load."""
    tier = Hardware(tier=os.environ.get("SYNTH_TIER", "auto")).name()
    set_up_process(home_folder(), tier)
    settings = (name for name in os.environ if name.startswith(DEPLOYMENT_VARIABLES))
    return _definitions_of(tier, tuple(sorted((name, os.environ[name]) for name in settings)))


@functools.lru_cache(maxsize=1)
def _definitions_of(tier: str, _settings: tuple[tuple[str, str], ...]) -> dg.Definitions:
    """Build the definitions once per set of deployment variables, because Dagster loads them several times a process.

    Step processes are forked from a process that has already built them, see cli/preload.py.
    """
    check = functools.partial(_check_run, tier=tier)
    return build_definitions(deployment_resources(), jobs.executor_for(TIERS[tier].device, check))


def _check_run(run_config: Mapping[str, Any], tier: str) -> None:
    """Validate what a run would find out late: its settings, and whether the embedding model is there."""
    check_settings(run_config, deployed(tier))
    home = SynthHome(folder=str(home_folder()))
    Embeddings(home=home, embedder_name=os.environ.get("SYNTH_EMBEDDER", "")).check()
