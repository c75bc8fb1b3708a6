"""The run of a promotion decision in MLflow."""

from collections.abc import Mapping

from synth_assets.registry.stage_runs import StageRun
from synth_assets.schemas.records import Decision
from synth_assets.stages.promotion.model_card import clause_table
from synth_assets.stages.promotion.policy import outcome_version


def decision_run(decision: Decision, dagster_run_id: str, checks: Mapping[str, int]) -> StageRun:
    """Return the run of a decision: outcome and models as parameters, clauses and checks as counts.

    Args:
        decision: the decision.
        dagster_run_id: the Dagster run that made it.
        checks: number of checks by status.
    """
    passed = sum(clause.passed for clause in decision.clauses)
    return StageRun(
        "promotion_decision",
        outcome_version(decision),  # a later run with the same outcome logs nothing new
        numbers={
            "clauses_passed": passed,
            "clauses_failed": len(decision.clauses) - passed,
            **{f"checks_{status}": float(number) for status, number in checks.items()},
        },
        parameters={
            "outcome": decision.outcome,
            "candidate": decision.candidate,
            "candidate_version": decision.candidate_version,
            "opponent": decision.opponent,
            "opponent_version": decision.opponent_version,
            "reason": decision.reason,
        },
        tags={"dagster.run_id": dagster_run_id, "dagster.asset_key": "promotion_decision"},
        texts={"clauses.md": clause_table(decision.clauses)} if decision.clauses else {},
    )
