"""The jobs of the project and the executor of their steps."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from resources.dagster_private import STEP_MODULES
from synth_assets.orchestration.executor import step_executor
from synth_assets.orchestration.run_queue import QUEUED
from synth_assets.training.methods import OPTIONAL_ADAPTERS

PRELOADED = [
    "synth_assets.orchestration.executor_preload",
    "torch",
    "transformers",
    "peft",
    "trl",
    "mlflow",
    "great_expectations",
    "lm_eval.models.huggingface",
    *STEP_MODULES,
    "synth_assets.cli.preload",
]
"""Modules that the fork server imports, in order. None of them may initialise CUDA."""

LAUNCHPAD_TAGS = {"trigger": "ui"}
"""Default tag of runs that are started in the UI; commands, the schedule and sensors override it."""

ALL_METHODS = dg.AssetSelection.all() - dg.AssetSelection.groups("efficiency", "reward_training", "export")
"""Assets of the job `all_methods`: those of the pipeline, and the adapters that it leaves out."""
PIPELINE = ALL_METHODS - dg.AssetSelection.assets(*OPTIONAL_ADAPTERS)
"""Assets of the job `pipeline`."""

pipeline = dg.define_asset_job(
    "pipeline",
    selection=PIPELINE,
    description="The whole pipeline, from one batch of new instructions to the promotion decision.",
    tags={**LAUNCHPAD_TAGS, **QUEUED},
)
all_methods = dg.define_asset_job(
    "all_methods",
    selection=ALL_METHODS,
    description="The pipeline with every training method, also those that it leaves out by default.",
    tags={**LAUNCHPAD_TAGS, **QUEUED},
)
study = dg.define_asset_job(
    "study",
    selection=dg.AssetSelection.groups("efficiency"),
    description="The LoRA efficiency study. Run a backfill to train the variants, then measure latencies and compare.",
    tags=LAUNCHPAD_TAGS,
)
reward = dg.define_asset_job(
    "reward",
    selection=dg.AssetSelection.groups("reward_training"),
    description="Train a reward model on the filtered preference pairs and measure it on held-out pairs.",
    tags=LAUNCHPAD_TAGS,
)
promote = dg.define_asset_job(
    "promote",
    selection=dg.AssetSelection.assets("promotion_decision", "champion"),
    description="The promotion decision alone: evaluate the current candidate again, promote a version, or roll back.",
    tags=LAUNCHPAD_TAGS,
)
export_champion = dg.define_asset_job(
    "export_champion",
    selection=dg.AssetSelection.groups("export"),
    description="Export the champion: merged, as GGUF files, as an Ollama model and as a release on a hub.",
    tags=LAUNCHPAD_TAGS,
)


def steps_at_once(device: str) -> int:
    """Return the number of parallel steps: two on a CPU, one on a GPU. `Tier.model_steps` limits those with a model."""
    return 2 if device == "cpu" else 1


def executor_for(device: str, check: Callable[[Mapping[str, Any]], None] | None = None) -> dg.ExecutorDefinition:
    """Return the executor for a device; `check` validates the run config before the first step.

    On the CPU, steps are forked from a process that has imported the model libraries, which saves 7.7 to 9.4 s per
    step. On a GPU the fork server imports none of them, because CUDA does not survive a fork.
    """
    return step_executor(steps_at_once(device), preloaded_for(device), check)


def preloaded_for(device: str) -> list[str]:
    """Return the modules that the fork server imports for steps on a device, in order."""
    return PRELOADED if device == "cpu" else PRELOADED[:1]
