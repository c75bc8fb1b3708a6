"""Checks of the stage promotion: the decision follows from its clauses, and the champion from the decision."""

import dagster as dg

from checks.sentences import RUN_AGAIN, sentence
from synth_assets.schemas.records import ChampionRecord, Decision


@dg.asset_check(asset="promotion_decision", blocking=True)
def decision_follows_its_clauses(promotion_decision: Decision) -> dg.AssetCheckResult:
    """Check that "promoted" has only passed clauses, "refused" a failed one, and that there is a reason."""
    failed = [clause.name for clause in promotion_decision.clauses if not clause.passed]
    follows = {
        "promoted": bool(promotion_decision.clauses) and not failed,
        "refused": bool(failed),
        "unchanged": True,
    }[promotion_decision.outcome]
    passed = follows and bool(promotion_decision.reason)
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(
            f"{promotion_decision.outcome} with {len(failed)} of {len(promotion_decision.clauses)} clauses failed",
            'a "promoted" needs none failed, a "refused" at least one, and each a reason',
            RUN_AGAIN,
            passed=passed,
        ),
        metadata={
            "outcome": promotion_decision.outcome,
            "clauses_that_failed": dg.MetadataValue.json(failed),
            "reason": promotion_decision.reason[:500],
        },
    )


def _version(version: str) -> str:
    return f"version {version}" if version else "the base model"


@dg.asset_check(asset="champion", additional_ins={"promotion_decision": dg.AssetIn("promotion_decision")})
def champion_follows_the_decision(champion: ChampionRecord, promotion_decision: Decision) -> dg.AssetCheckResult:
    """Check that the promoted version serves, and that no version that the policy refuses was set in MLflow."""
    promoted = promotion_decision.outcome == "promoted"
    expected_version = promotion_decision.candidate_version if promoted else promotion_decision.opponent_version
    follows = champion.version == expected_version or (not promoted and champion.action == "moved by hand")
    passed = follows and not champion.flagged
    refused = ", which the policy refuses" if champion.flagged else ""
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(
            f"{_version(champion.version)} serves{refused}",
            f"{_version(expected_version)} expected after the decision {promotion_decision.outcome}",
            "Return to an earlier champion with synth rollback, or approve this one with synth promote VERSION",
            passed=passed,
        ),
        metadata={
            "champion": champion.version or "the base",
            "action": champion.action,
            "decision": promotion_decision.outcome,
            "refused_by_the_policy": champion.flagged,
        },
    )
