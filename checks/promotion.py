"""Does a decision follow from its clauses?"""

import dagster as dg

from synth_assets.records import Decision


@dg.asset_check(asset="promotion_decision", blocking=True)
def decision_follows_its_clauses(promotion_decision: Decision) -> dg.AssetCheckResult:
    """Promoted only where every clause held, and there was one; refused only where one did not; with a reason."""
    failed = [clause.name for clause in promotion_decision.clauses if not clause.passed]
    follows = {
        "promoted": bool(promotion_decision.clauses) and not failed,
        "refused": bool(failed),
        "unchanged": True,
    }[promotion_decision.outcome]
    return dg.AssetCheckResult(
        passed=follows and bool(promotion_decision.reason),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "outcome": promotion_decision.outcome,
            "clauses_that_failed": dg.MetadataValue.json(failed),
            "reason": promotion_decision.reason[:500],
        },
    )
