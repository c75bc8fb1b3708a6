"""The jobs a person or a schedule starts, and how their steps run."""

import dagster as dg

PRELOADED = [
    "resources.step_process",
    "torch",
    "transformers",
    "peft",
    "trl",
    "mlflow",
    "great_expectations",
    "lm_eval.models.huggingface",
    "synth_assets.definitions",
]
"""What the process loads that steps are forked from, in order; none of it may touch CUDA."""
CPU_STEPS = 2  # steps at once on the cpu tier, one torch thread each

pipeline = dg.define_asset_job(
    "pipeline",
    selection=dg.AssetSelection.all() - dg.AssetSelection.groups("efficiency"),
    description="Everything from one batch of new instructions to a promoted or refused challenger.",
)
promote = dg.define_asset_job(
    "promote",
    selection=dg.AssetSelection.assets("promotion_decision", "champion"),
    description="The promotion decision alone: judge the present candidate again, promote a version, or roll back.",
)


def executor_for(device: str) -> dg.ExecutorDefinition:
    """How steps run on a device.

    On the CPU two steps at once, forked from a process that has loaded the model libraries (7.7 to 9.4 s that each
    step would otherwise pay); on a GPU fresh processes, because CUDA does not survive a fork.
    """
    if device == "cpu":
        start = {"forkserver": {"preload_modules": PRELOADED}}
        return dg.multiprocess_executor.configured({"max_concurrent": CPU_STEPS, "start_method": start})
    return dg.multiprocess_executor.configured({"start_method": {"spawn": {}}})
