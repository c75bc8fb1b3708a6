"""`synth reward`: train a reward model on the filtered preference pairs and print its accuracy on held-out pairs."""

from collections.abc import Sequence

import dagster as dg

from resources.run_processes import PROCESS_TAG, close_dead_runs, this_process
from synth_assets.cli.execution import JobRun, execute
from synth_assets.cli.session import Session
from synth_assets.cli.settings import ops_for
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.stages.reward_training.accuracy import TrainedReward
from synth_assets.stages.reward_training.pairs import REMEDY

TRIGGER = "synth reward"
INPUTS = ("filtered_preferences.parquet", "recalled_rows.parquet", "base_model.json")  # below tables/ of the home


def reward_job() -> dg.JobDefinition:
    """Return the job `reward` of this deployment. Step processes import this function by name."""
    from synth_assets.definitions import defs

    return defs().resolve_job_def("reward")


def run_reward(session: Session, settings: Sequence[str], console: RedactingConsole) -> bool:
    """Train the reward model; return True if every step succeeded.

    Args:
        session: the deployment.
        settings: "trained_reward_model.field=value".
        console: where progress is printed.

    Raises:
        ValueError: an input was never materialised, or a setting is invalid; no step was started.
        StoppedError: a signal stopped the run; the training resumes from its last checkpoint.
    """
    from synth_assets.orchestration.run_validation import check_settings

    missing = [name.partition(".")[0] for name in INPUTS if not (session.home / "tables" / name).is_file()]
    if missing:
        raise ValueError(f"the reward model needs {', '.join(missing)}, never materialised. {REMEDY}")
    config = {"ops": ops_for(reward_job(), settings)}
    check_settings(config, session.hardware)
    close_dead_runs(session.instance)
    session.limit_model_steps()
    tags = {"tier": session.tier_name, "trigger": TRIGGER, PROCESS_TAG: this_process()}
    resume = ["synth", "reward", *(part for setting in settings for part in ("--set", setting))]
    return execute(session, JobRun(reward_job, config, tags, resume=resume), console)


def reward_text(session: Session) -> str:
    """Return the accuracy of the last trained reward model and the line that uses it."""
    record = session.record("trained_reward_model", TrainedReward)
    if record is None:
        return "no reward model has been trained yet: synth reward"
    lines = [
        f"held-out accuracy    {record.held_out.text()}",
        f"training accuracy    {record.train.text()}",
        f"longer is better     {record.longer.text()}",
        *([f"{record.current_model:20} {record.current.text()}"] if record.current else []),
        "",
        f"To use it: export SYNTH_REWARD={record.location}",
    ]
    return "\n".join(lines)
