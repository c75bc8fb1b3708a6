"""The jobs a person or a schedule starts, and how their steps run."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from resources.dagster_private import STEP_MODULES
from synth_assets.orchestration.executor import step_executor
from synth_assets.orchestration.run_queue import QUEUED

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
"""What the process loads that steps are forked from, in order; none of it may touch CUDA."""

LAUNCHPAD = {"trigger": "ui"}
"""The tag of a run that a person starts in the UI; commands, schedule and sensors put theirs over it."""

pipeline = dg.define_asset_job(
    "pipeline",
    selection=dg.AssetSelection.all() - dg.AssetSelection.groups("efficiency"),
    description="Everything from one batch of new instructions to a promoted or refused challenger.",
    tags={**LAUNCHPAD, **QUEUED},
)
study = dg.define_asset_job(
    "study",
    selection=dg.AssetSelection.groups("efficiency"),
    description="The LoRA efficiency study: a backfill trains its variants, then times and compares them.",
    tags=LAUNCHPAD,
)
promote = dg.define_asset_job(
    "promote",
    selection=dg.AssetSelection.assets("promotion_decision", "champion"),
    description="The promotion decision alone: judge the present candidate again, promote a version, or roll back.",
    tags=LAUNCHPAD,
)


def steps_at_once(device: str) -> int:
    """How many steps run beside each other: one torch thread each on the CPU; on a GPU each fills the card."""
    return 2 if device == "cpu" else 1


def executor_for(device: str, check: Callable[[Mapping[str, Any]], None] | None = None) -> dg.ExecutorDefinition:
    """How steps run on a device, once `check` has looked at the run's config.

    On the CPU they are forked from a process that has loaded the model libraries (7.7 to 9.4 s that each step would
    otherwise pay). On a GPU from a process without any of them: CUDA does not survive a fork.
    """
    return step_executor(steps_at_once(device), preloaded_for(device), check)


def preloaded_for(device: str) -> list[str]:
    """Return the modules that the fork server imports for steps on a device, in order."""
    return PRELOADED if device == "cpu" else PRELOADED[:1]
