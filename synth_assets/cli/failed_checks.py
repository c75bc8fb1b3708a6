"""Explain on the terminal why a run ended early: which checks stopped it, what they found, and how to go on."""

from collections.abc import Iterator

import dagster as dg

from synth_assets.cli.rows import entry
from synth_assets.reporting.escaping import terminal_line

MAX_SHOWN_CHECKS = 5
MAX_CHARACTERS = 1_000


def stop_text(instance: dg.DagsterInstance, run_id: str, resume: str) -> str:
    """Describe the blocking checks that failed in a run, or refer to its failed steps.

    Args:
        instance: the Dagster instance.
        run_id: the run.
        resume: the command that continues the run; empty if there is none.
    """
    failed = list(_failed_blocking(instance, run_id))
    if not failed:
        start = "The run failed; see the lines marked FAILED. Finished work is kept"
        return f"{start}; resume it with: {resume}" if resume else f"{start}."
    lines = ["Stopped by a failed check: nothing that depends on the data was computed."]
    for evaluation in failed[:MAX_SHOWN_CHECKS]:
        asset = evaluation.asset_key.to_user_string()
        lines.append(entry("check", f"{evaluation.check_name} of {asset}"))
        lines.append(entry("found", terminal_line(evaluation.description or "no description", MAX_CHARACTERS)))
    if len(failed) > MAX_SHOWN_CHECKS:
        lines.append(entry("", f"and {len(failed) - MAX_SHOWN_CHECKS} more: synth status"))
    if resume:
        lines.append(entry("go on", f"Make the change, then: {resume}"))
    return "\n".join(lines)


def _failed_blocking(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield the failed evaluations with ERROR severity of the checks that block downstream assets."""
    for event in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        evaluation = event.asset_check_evaluation
        if evaluation is None or evaluation.passed or not evaluation.blocking:
            continue
        if evaluation.severity is dg.AssetCheckSeverity.ERROR:
            yield evaluation
