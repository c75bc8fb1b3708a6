"""The real pipeline on the embedded models with few rows: a code location for UI tests, a program for kill tests.

Everything is as in production except the number of rows, epochs and items.

`python small_deployment.py BATCH [SELECTION]` runs the job `pipeline` once and exits with 0 if it succeeded.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg

from resources.deployment import home_folder, set_up_process, write_instance_settings
from resources.hardware import Hardware
from resources.inference import Inference
from resources.reward import RewardModels
from resources.run_processes import close_dead_runs
from synth_assets.cli.run import run_tags
from synth_assets.definitions import build_definitions, deployment_resources
from synth_assets.schemas.tier import Tier

SMALL: Mapping[str, Mapping[str, Any]] = {
    "LoraSpec": {"epochs": 4.0},
    "PromptTuningSpec": {"epochs": 1.0},
    "DpoSpec": {"epochs": 1.0},
    "OnPolicyDpoSpec": {"epochs": 1.0},
    "RejectionSamplingSpec": {"epochs": 1.0},
    "CandidateSpec": {"instructions": 96},
    "OnPolicyCandidateSpec": {"instructions": 96},
    "EvaluationSpec": {"validation_items": 64, "test_items": 192},
    "StudySpec": {"train_rows": 32, "epochs": 1.0, "items": 8},
    "LatencySpec": {"prompts": 4, "max_tokens": 8},
}
SMALL_SAMPLES = 192


class SmallHardware(Hardware):
    """Hardware with the cpu tier and few rows, epochs and items."""

    def row(self) -> Tier:
        row = super().row()
        merged = {name: {**row.overrides.get(name, {}), **SMALL.get(name, {})} for name in {*row.overrides, *SMALL}}
        return replace(row, samples=SMALL_SAMPLES, overrides=merged)


def small_definitions(executor: dg.ExecutorDefinition) -> dg.Definitions:
    set_up_process(home_folder(), "cpu")
    hardware = SmallHardware(tier="cpu")
    overrides = {
        "hardware": hardware,
        "inference": Inference(hardware=hardware),
        "rewards": RewardModels(hardware=hardware),
    }
    return build_definitions({**deployment_resources(), **overrides}, executor)


@dg.definitions
def defs() -> dg.Definitions:
    return small_definitions(dg.in_process_executor)


def pipeline_in_process() -> dg.JobDefinition:
    return small_definitions(dg.in_process_executor).resolve_job_def("pipeline")


def study_in_process() -> dg.JobDefinition:
    return small_definitions(dg.in_process_executor).resolve_job_def("study")


def run_once(batch: str, selection: str | None = None) -> dg.JobExecutionResult:
    home = home_folder()
    set_up_process(home, "cpu")
    write_instance_settings(home)
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("batches", [batch])
        close_dead_runs(instance)
        job = pipeline_in_process()
        assets = selection and dg.AssetSelection.from_string(selection).required_multi_asset_neighbors()
        return dg.execute_job(
            dg.reconstructable(pipeline_in_process),
            instance=instance,
            tags=run_tags(batch, "cpu"),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            asset_selection=sorted(assets.resolve(job.asset_layer.asset_graph)) if assets else None,
        )


if __name__ == "__main__":
    sys.exit(0 if run_once(*sys.argv[1:]).success else 1)
