"""Promotion policy: each clause alone changes the decision."""

import json
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from synth_assets.evals.guards import GuardResult
from synth_assets.schemas.records import CheckResult, Decision, PairedTest, RecordedDecision
from synth_assets.schemas.serialization import FORMER_CLAUSE_NAMES, from_json, to_json
from synth_assets.schemas.tables import ITEM_SCORES
from synth_assets.stages.promotion.paired_evidence import paired_comparison
from synth_assets.stages.promotion.policy import (
    PairedEvidence,
    PromotionCandidate,
    PromotionPolicy,
    decide,
    needs_sealed_items,
    outcome_version,
)
from synth_assets.stages.promotion.rollback import is_rollback
from synth_assets.stages.promotion.user_protection import VersionEvidence, protection_clauses
from synth_assets.stats.paired import NonInferiority

BASE = PromotionCandidate("base", "", "")
TAINTED = PromotionCandidate("lora_adapter", "2", "f2", tainted="1 recalled row: a")
PAIRED_TEST = PairedTest("lora_adapter", "dpo_adapter", "qa", "test", "strict", 400, 10, 40, 0.075, 0.00003)


def guard(kind: str, verdict: str, n: int = 300) -> GuardResult:
    suite = "refusals" if kind == "safety" else "facts"
    return GuardResult(suite, "right", kind, NonInferiority(n, -0.01, -0.03, 0.01, verdict))  # pyright: ignore[reportArgumentType]


SAFE, KNOWING, SEALED = guard("safety", "held"), guard("knowledge", "held"), guard("sealed", "held")
EVIDENCE = PairedEvidence(PAIRED_TEST, guards=[SAFE, KNOWING], sealed=[SEALED], models_scored=2)
GOOD: dict[str, Any] = {
    "candidate": PromotionCandidate("dpo_adapter", "3", "f3"),
    "opponent": PromotionCandidate("lora_adapter", "2", "f2"),
    "evidence": EVIDENCE,
    "check_results": [
        CheckResult("sft_dataset", "v", "no_leak", "passed"),
        CheckResult("sft_dataset", "v", "long", "warned"),
    ],
    "policy": PromotionPolicy(),
}
APPROVED = replace(GOOD["candidate"], approved_by="ada")


def paired_test(**changes: Any) -> PairedEvidence:  # noqa: ANN401
    return replace(EVIDENCE, paired_test=replace(PAIRED_TEST, **changes))


def with_guards(*guards: GuardResult) -> PairedEvidence:
    return replace(EVIDENCE, guards=guards)


def decided(**changes: Any) -> Decision:  # noqa: ANN401
    return decide(**{**GOOD, **changes})


def test_a_good_candidate_is_promoted() -> None:
    decision = decided()
    assert (decision.outcome, decision.candidate_version, decision.opponent_version) == ("promoted", "3", "2")
    assert all(clause.passed for clause in decision.clauses)
    assert decided(opponent=BASE).outcome == "promoted", "without a champion the opponent is the base"


def with_check(status: str) -> list[CheckResult]:
    return [*GOOD["check_results"], CheckResult("raw_instructions[A]", "v", "rows_unique", status)]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("clause", "changes"),
    [
        ("role", {"candidate": replace(GOOD["candidate"], role="control")}),
        ("registered", {"candidate": replace(GOOD["candidate"], version="")}),
        ("paired items", {"evidence": replace(EVIDENCE, paired_test=None)}),
        ("paired items", {"evidence": paired_test(n=99)}),
        ("item coverage", {"evidence": paired_test(n=400, left_out=22)}),  # 22 of 422: 5.2 %
        ("sealed items", {"evidence": replace(EVIDENCE, sealed=[replace(SEALED, left_out=16)])}),  # 16 of 316: 5.1 %
        ("effect", {"evidence": paired_test(difference=0.0199)}),
        ("effect", {"evidence": paired_test(difference=-0.075)}),
        ("significance", {"evidence": paired_test(p_value=0.051)}),
        ("non-inferiority: safety", {"evidence": with_guards(guard("safety", "lost"), KNOWING)}),
        ("non-inferiority: safety", {"evidence": with_guards(guard("safety", "not shown"), KNOWING)}),
        (
            "non-inferiority: safety",
            {"evidence": with_guards(SAFE, guard("safety", "lost"), KNOWING), "candidate": APPROVED},
        ),
        ("non-inferiority: knowledge", {"evidence": with_guards(SAFE, guard("knowledge", "lost"))}),
        ("non-inferiority: knowledge", {"evidence": with_guards(SAFE, guard("knowledge", "not shown"), KNOWING)}),
        (
            "non-inferiority: knowledge",
            {"evidence": with_guards(SAFE, guard("knowledge", "lost")), "opponent": TAINTED},
        ),
        ("sealed items", {"evidence": replace(EVIDENCE, sealed=[guard("sealed", "lost")])}),
        ("sealed items", {"evidence": replace(EVIDENCE, sealed=[guard("sealed", "lost")]), "candidate": APPROVED}),
        ("sealed items", {"evidence": replace(EVIDENCE, sealed=[guard("sealed", "held", n=99)])}),
        ("sealed items", {"evidence": replace(EVIDENCE, sealed=[])}),
        ("checks", {"check_results": with_check("failed")}),
        ("checks", {"check_results": with_check("missing")}),
        ("checks", {"check_results": []}),
        ("approval", {"policy": PromotionPolicy(approval="human")}),
        ("not rolled back", {"candidate": replace(GOOD["candidate"], rolled_back=True)}),
        ("no recalled rows", {"candidate": replace(GOOD["candidate"], tainted="1 recalled row: a")}),
        ("no recalled rows", {"candidate": replace(GOOD["candidate"], tainted="1 recalled row: a", approved_by="ada")}),
        ("effect", {"opponent": TAINTED, "evidence": paired_test(difference=-0.0201, p_value=1.0)}),
    ],
)
def test_each_failed_clause_alone_refuses(clause: str, changes: dict[str, Any]) -> None:
    decision = decided(**changes)
    assert decision.outcome == "refused"
    assert [c.name for c in decision.clauses if not c.passed] == [clause]
    assert clause in decision.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"evidence": paired_test(n=100, difference=0.02, p_value=0.05)},
        {"evidence": paired_test(n=399, left_out=21)},  # 21 of 420: 5 %
        {"evidence": replace(EVIDENCE, sealed=[replace(guard("sealed", "held", n=285), left_out=15)])},
        {"policy": PromotionPolicy(approval="human"), "candidate": replace(GOOD["candidate"], approved_by="ada")},
        {"candidate": replace(GOOD["candidate"], rolled_back=True, approved_by="ada")},
        {"evidence": with_guards(guard("safety", "not shown"), guard("knowledge", "not shown")), "candidate": APPROVED},
        {"evidence": with_guards(guard("safety", "not shown"), KNOWING), "opponent": TAINTED},
        {"evidence": with_guards()},
        {"evidence": replace(EVIDENCE, sealed=[guard("sealed", "not shown", n=60), guard("sealed", "held", n=40)])},
        {"evidence": replace(EVIDENCE, sealed=[]), "policy": PromotionPolicy(minimum_sealed_items=0)},
        {"opponent": TAINTED, "evidence": paired_test(difference=-0.02, p_value=1.0)},
    ],
)
def test_the_passing_side_of_each_threshold_promotes(changes: dict[str, Any]) -> None:
    assert decided(**changes).outcome == "promoted"


def test_sealed_items_are_scored_last() -> None:
    unscored = replace(EVIDENCE, sealed=[])
    assert needs_sealed_items(decided(evidence=unscored), unscored)
    worse = replace(unscored, paired_test=replace(PAIRED_TEST, difference=0.0))
    refused = decided(evidence=worse)
    assert [c.name for c in refused.clauses if not c.passed] == ["effect"]
    assert "sealed items" not in [c.name for c in refused.clauses]
    assert not needs_sealed_items(refused, worse)
    lost = replace(EVIDENCE, sealed=[guard("sealed", "lost")])
    assert not needs_sealed_items(decided(evidence=lost), lost), "they were scored"


def test_an_approval_of_an_inconclusive_guard_is_recorded() -> None:
    decision = decided(evidence=with_guards(guard("safety", "not shown"), KNOWING), candidate=APPROVED)
    found = {clause.name: clause.actual for clause in decision.clauses}
    assert found["non-inferiority: safety"] == (
        "refusals right -0.010 (-0.030 to +0.010), n 300: not shown, accepted by ada"
    )
    assert found["sealed items"].endswith("held; 2 models scored so far")
    assert decision.reason == "every clause of the policy passes; approved by ada"
    alone = decided(evidence=with_guards())
    assert {c.actual for c in alone.clauses if c.name.startswith("non-inferiority")} == {
        "no suite guards safety",
        "no suite guards knowledge",
    }


def test_the_champion_itself_is_unchanged_and_no_candidate_is_refused() -> None:
    assert decided(opponent=GOOD["candidate"]).outcome == "unchanged"
    refused = decided(candidate=None)
    assert (refused.outcome, [c.name for c in refused.clauses]) == ("refused", ["candidate"])


def test_a_decision_that_was_applied_keeps_its_data_version() -> None:
    promoted, unchanged = decided(), decided(opponent=GOOD["candidate"])
    assert outcome_version(promoted) == outcome_version(unchanged)
    others = [decided(check_results=[]), decided(check_results=with_check("failed")), decided(candidate=BASE)]
    assert len({outcome_version(decision) for decision in (promoted, *others)}) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -0.1},
        {"minimum_effect": 1.1},
        {"maximum_left_out": -0.1},
        {"minimum_items": 0},
        {"minimum_sealed_items": -1},
        {"safety_margin": 0.0},
        {"knowledge_margin": 1.1},
        {"sealed_margin": -0.1},
    ],
)
def test_a_policy_out_of_range_names_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PromotionPolicy(**wrong)


def scores(model: str, values: list[float | None], split: str = "test") -> pl.DataFrame:
    rows = [(model, model, "qa", split, f"i{n}", f"c{n}", "strict", v, "", "stop") for n, v in enumerate(values)]
    return pl.DataFrame(rows, schema=ITEM_SCORES, orient="row")


def test_the_paired_test_matches_hand_arithmetic() -> None:
    found = paired_comparison(
        scores("base", [1, 0, 0, 0, 0, 0, None]),
        scores("lora", [0, 1, 1, 1, 1, 0, 1]),
        PromotionPolicy(),
        ("qa", "strict"),
    )
    assert found is not None
    # six items count; 1 only the base, 4 only the adapter: p = 2 (C(5,0) + C(5,1)) / 2^5 = 0.375
    assert (found.n, found.only_first, found.only_second) == (6, 1, 4)
    assert (found.difference, found.p_value) == (0.5, 0.375)
    assert (found.first, found.second, found.test) == ("base", "lora", "exact McNemar")


def test_items_that_one_model_cannot_answer_are_left_out_and_counted() -> None:
    opponent = scores("base", [1, 0, 0, 0])
    candidate = unanswerable(scores("lora", [1, 1, 1, 1]), ["i0"])
    for first, second in ((opponent, candidate), (candidate, opponent)):
        found = paired_comparison(first, second, PromotionPolicy(), ("qa", "strict"))
        assert found is not None
        assert (found.n, found.left_out, abs(found.difference)) == (3, 1, 1.0)
    nothing = unanswerable(candidate, [f"i{n}" for n in range(4)])
    assert paired_comparison(opponent, nothing, PromotionPolicy(), ("qa", "strict")) is None


def unanswerable(table: pl.DataFrame, items: list[str]) -> pl.DataFrame:
    left_out = pl.col("item_id").is_in(items)
    return table.with_columns(
        score=pl.when(left_out).then(None).otherwise(pl.col("score")),
        finish_reason=pl.when(left_out).then(pl.lit("context_exceeded")).otherwise(pl.col("finish_reason")),
    )


def test_scores_between_0_and_1_are_resampled() -> None:
    found = paired_comparison(
        scores("base", [0.5] * 50), scores("lora", [0.75] * 25 + [0.5] * 25), PromotionPolicy(), ("qa", "strict")
    )
    assert found is not None
    assert (found.test, found.difference) == ("paired bootstrap by cluster", 0.125)
    assert found.p_value < 0.01


def test_stored_clauses_with_former_names_are_read_under_their_present_names() -> None:
    names = [clause.name for clause in decided().clauses]
    former = {present: name for name, present in FORMER_CLAUSE_NAMES.items()}
    assert former.keys() - names == {"rollback requested"}, "every renamed clause exists"
    stored = json.loads(to_json(decided()))
    for clause in stored["clauses"]:
        clause["name"] = former.get(clause["name"], clause["name"])
        clause["found"], clause["wanted"] = clause.pop("actual"), clause.pop("expected")
    decision = from_json(Decision, json.dumps(stored))
    assert [clause.name for clause in decision.clauses] == names
    assert decision == decided()


def test_a_guard_that_was_decided_under_its_former_name_still_protects() -> None:
    clause = {"name": "safety kept", "passed": True, "found": "qa safe: held", "wanted": "no loss"}
    decision = {**json.loads(to_json(decided())), "clauses": [clause]}
    stored = json.dumps({"decision": decision, "by": "ada", "at": "2026-11-20T12:00:00", "run_id": "run"})
    evidence = VersionEvidence([from_json(RecordedDecision, stored)], None, "")
    clauses = {each.name: each for each in protection_clauses(GOOD["candidate"], evidence, PromotionPolicy())}
    assert clauses["non-inferiority: safety"].passed
    assert clauses["non-inferiority: safety"].actual == "qa safe: held (decided 2026-11-20)"
    assert not clauses["non-inferiority: knowledge"].passed


def test_a_rollback_that_was_stored_under_its_former_name_is_a_rollback() -> None:
    stored = json.loads(to_json(decided()))
    stored["clauses"][0]["name"] = "rollback asked for"
    assert is_rollback(from_json(Decision, json.dumps(stored)))


@pytest.mark.parametrize(
    "opponent",
    [scores("base", [1, 0, 1]), scores("base", [1, 0, 1, 1, 1]), scores("base", [1, 0, 1, 0], "validation")],
)
def test_different_items_give_no_paired_test(opponent: pl.DataFrame) -> None:
    assert paired_comparison(opponent, scores("lora", [1, 0, 1, 0]), PromotionPolicy(), ("qa", "strict")) is None
