"""The one composition root: assets, checks, jobs and automation, with the resources of a deployment."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

import checks.adapters
import checks.benchmarks
import checks.evaluation
import checks.filtering
import checks.generation
import checks.models
import checks.preference
import checks.promotion
import synth_assets.adapters.assets
import synth_assets.benchmarks.assets
import synth_assets.evaluation.assets
import synth_assets.filtering.assets
import synth_assets.generation.assets
import synth_assets.models.assets
import synth_assets.preference.assets
import synth_assets.promotion.assets
from resources.deployment import home_folder, set_up_process
from resources.hardware import TIERS, Hardware
from resources.inference import Inference
from resources.reward import RewardModels
from resources.storage import AssetStorage, Home
from resources.tracking import MlflowTracking
from synth_assets import automation, jobs

STAGES = [
    synth_assets.models.assets,
    synth_assets.generation.assets,
    synth_assets.benchmarks.assets,
    synth_assets.filtering.assets,
    synth_assets.preference.assets,
    synth_assets.adapters.assets,
    synth_assets.evaluation.assets,
    synth_assets.promotion.assets,
]
CHECKS = [
    checks.models,
    checks.generation,
    checks.benchmarks,
    checks.filtering,
    checks.preference,
    checks.adapters,
    checks.evaluation,
    checks.promotion,
]


def deployment_resources() -> dict[str, Any]:
    """The resources of this machine, from SYNTH_TIER, SYNTH_HOME and MLFLOW_TRACKING_URI where they are set."""
    hardware = Hardware(**{"tier": dg.EnvVar("SYNTH_TIER")} if "SYNTH_TIER" in os.environ else {})
    home = Home(folder=str(home_folder()))
    uri = {"tracking_uri": dg.EnvVar("MLFLOW_TRACKING_URI")} if "MLFLOW_TRACKING_URI" in os.environ else {}
    return {
        "hardware": hardware,
        "home": home,
        "inference": Inference(hardware=hardware),
        "rewards": RewardModels(hardware=hardware),
        "tracking": MlflowTracking(home=home, **uri),
        "io_manager": AssetStorage(home=home),
    }


def build_definitions(resources: Mapping[str, Any], executor: Any | None = None) -> dg.Definitions:
    """All assets, checks, jobs and automation over the given resources."""
    return dg.Definitions(
        assets=dg.load_assets_from_modules(STAGES),
        asset_checks=dg.load_asset_checks_from_modules(CHECKS),
        jobs=[jobs.pipeline, jobs.promote],
        schedules=automation.SCHEDULES,
        sensors=automation.SENSORS,
        resources=dict(resources),
        executor=executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev` and `synth` load."""
    tier = Hardware(tier=os.environ.get("SYNTH_TIER", "auto")).name()
    set_up_process(home_folder(), tier)
    resources = deployment_resources()
    return build_definitions(resources, jobs.executor_for(TIERS[tier].device))
