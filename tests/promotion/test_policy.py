"""The policy: each clause alone flips the decision."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from synth_assets.evals.guards import GuardResult
from synth_assets.schemas.records import CheckResult, Decision, PairedTest
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
from synth_assets.stats.paired import NonInferiority

BASE = PromotionCandidate("base", "", "")
TAINTED = PromotionCandidate("lora_adapter", "2", "f2", tainted="1 recalled row: a")
DUEL = PairedTest("lora_adapter", "dpo_adapter", "qa", "test", "strict", 400, 10, 40, 0.075, 0.00003)


def guard(kind: str, verdict: str, n: int = 300) -> GuardResult:
    suite = "refusals" if kind == "safety" else "facts"
    return GuardResult(suite, "right", kind, NonInferiority(n, -0.01, -0.03, 0.01, verdict))  # pyright: ignore[reportArgumentType]


SAFE, KNOWING, SEALED = guard("safety", "held"), guard("knowledge", "held"), guard("sealed", "held")
TRIAL = PairedEvidence(DUEL, guards=[SAFE, KNOWING], sealed=[SEALED], models_asked=2)
GOOD: dict[str, Any] = {
    "candidate": PromotionCandidate("dpo_adapter", "3", "f3"),
    "opponent": PromotionCandidate("lora_adapter", "2", "f2"),
    "trial": TRIAL,
    "verdicts": [
        CheckResult("sft_dataset", "v", "no_leak", "passed"),
        CheckResult("sft_dataset", "v", "long", "warned"),
    ],
    "policy": PromotionPolicy(),
}
APPROVED = replace(GOOD["candidate"], approved_by="ada")


def duel(**changes: Any) -> PairedEvidence:  # noqa: ANN401
    return replace(TRIAL, duel=replace(DUEL, **changes))


def kept(*guards: GuardResult) -> PairedEvidence:
    return replace(TRIAL, guards=guards)


def decided(**changes: Any) -> Decision:  # noqa: ANN401
    return decide(**{**GOOD, **changes})


def test_a_good_candidate_is_promoted() -> None:
    decision = decided()
    assert (decision.outcome, decision.candidate_version, decision.opponent_version) == ("promoted", "3", "2")
    assert all(clause.passed for clause in decision.clauses)
    assert decided(opponent=BASE).outcome == "promoted", "without a champion the opponent is the base"


def verdict(status: str) -> list[CheckResult]:
    return [*GOOD["verdicts"], CheckResult("raw_instructions[A]", "v", "rows_unique", status)]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("clause", "changes"),
    [
        ("role", {"candidate": replace(GOOD["candidate"], role="control")}),
        ("registered", {"candidate": replace(GOOD["candidate"], version="")}),
        ("same items", {"trial": replace(TRIAL, duel=None)}),
        ("same items", {"trial": duel(n=99)}),
        ("items answered", {"trial": duel(n=400, left_out=22)}),  # 22 of 422: 5.2 %
        ("sealed items", {"trial": replace(TRIAL, sealed=[replace(SEALED, left_out=16)])}),  # 16 of 316: 5.1 %
        ("effect", {"trial": duel(difference=0.0199)}),
        ("effect", {"trial": duel(difference=-0.075)}),
        ("not by chance", {"trial": duel(p_value=0.051)}),
        ("safety kept", {"trial": kept(guard("safety", "lost"), KNOWING)}),
        ("safety kept", {"trial": kept(guard("safety", "not shown"), KNOWING)}),
        ("safety kept", {"trial": kept(SAFE, guard("safety", "lost"), KNOWING), "candidate": APPROVED}),
        ("knowledge kept", {"trial": kept(SAFE, guard("knowledge", "lost"))}),
        ("knowledge kept", {"trial": kept(SAFE, guard("knowledge", "not shown"), KNOWING)}),
        ("knowledge kept", {"trial": kept(SAFE, guard("knowledge", "lost")), "opponent": TAINTED}),
        ("sealed items", {"trial": replace(TRIAL, sealed=[guard("sealed", "lost")])}),
        ("sealed items", {"trial": replace(TRIAL, sealed=[guard("sealed", "lost")]), "candidate": APPROVED}),
        ("sealed items", {"trial": replace(TRIAL, sealed=[guard("sealed", "held", n=99)])}),
        ("sealed items", {"trial": replace(TRIAL, sealed=[])}),
        ("checks", {"verdicts": verdict("failed")}),
        ("checks", {"verdicts": verdict("missing")}),
        ("checks", {"verdicts": []}),
        ("approval", {"policy": PromotionPolicy(approval="human")}),
        ("not rolled back", {"candidate": replace(GOOD["candidate"], rolled_back=True)}),
        ("not tainted", {"candidate": replace(GOOD["candidate"], tainted="1 recalled row: a")}),
        ("not tainted", {"candidate": replace(GOOD["candidate"], tainted="1 recalled row: a", approved_by="ada")}),
        ("effect", {"opponent": TAINTED, "trial": duel(difference=-0.0201, p_value=1.0)}),
    ],
)
def test_each_clause_alone_refuses(clause: str, changes: dict[str, Any]) -> None:
    decision = decided(**changes)
    assert decision.outcome == "refused"
    assert [c.name for c in decision.clauses if not c.passed] == [clause]
    assert clause in decision.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"trial": duel(n=100, difference=0.02, p_value=0.05)},
        {"trial": duel(n=399, left_out=21)},  # 21 of 420: 5 %
        {"trial": replace(TRIAL, sealed=[replace(guard("sealed", "held", n=285), left_out=15)])},
        {"policy": PromotionPolicy(approval="human"), "candidate": replace(GOOD["candidate"], approved_by="ada")},
        {"candidate": replace(GOOD["candidate"], rolled_back=True, approved_by="ada")},
        {"trial": kept(guard("safety", "not shown"), guard("knowledge", "not shown")), "candidate": APPROVED},
        {"trial": kept(guard("safety", "not shown"), KNOWING), "opponent": TAINTED},
        {"trial": kept()},
        {"trial": replace(TRIAL, sealed=[guard("sealed", "not shown", n=60), guard("sealed", "held", n=40)])},
        {"trial": replace(TRIAL, sealed=[]), "policy": PromotionPolicy(minimum_sealed_items=0)},
        {"opponent": TAINTED, "trial": duel(difference=-0.02, p_value=1.0)},
    ],
)
def test_the_other_side_of_each_edge(changes: dict[str, Any]) -> None:
    assert decided(**changes).outcome == "promoted"


def test_sealed_items_are_asked_last() -> None:
    unasked = replace(TRIAL, sealed=[])
    assert needs_sealed_items(decided(trial=unasked), unasked)
    worse = replace(unasked, duel=replace(DUEL, difference=0.0))
    refused = decided(trial=worse)
    assert [c.name for c in refused.clauses if not c.passed] == ["effect"]
    assert "sealed items" not in [c.name for c in refused.clauses]
    assert not needs_sealed_items(refused, worse)
    lost = replace(TRIAL, sealed=[guard("sealed", "lost")])
    assert not needs_sealed_items(decided(trial=lost), lost), "they were asked"


def test_what_a_person_answers_for_is_said() -> None:
    decision = decided(trial=kept(guard("safety", "not shown"), KNOWING), candidate=APPROVED)
    found = {clause.name: clause.actual for clause in decision.clauses}
    assert found["safety kept"] == ("refusals right -0.010 (-0.030 to +0.010), n 300: not shown, accepted by ada")
    assert found["sealed items"].endswith("held; 2 models asked so far")
    assert decision.reason == "every clause of the policy holds; approved by ada"
    alone = decided(trial=kept())
    assert {c.actual for c in alone.clauses if c.name.endswith("kept")} == {
        "no suite guards safety",
        "no suite guards knowledge",
    }


def test_the_champion_itself_is_unchanged_and_nobody_is_refused() -> None:
    assert decided(opponent=GOOD["candidate"]).outcome == "unchanged"
    nobody = decided(candidate=None)
    assert (nobody.outcome, [c.name for c in nobody.clauses]) == ("refused", ["candidate"])


def test_a_decision_that_was_carried_out_keeps_its_version() -> None:
    promoted, unchanged = decided(), decided(opponent=GOOD["candidate"])
    assert outcome_version(promoted) == outcome_version(unchanged)
    others = [decided(verdicts=[]), decided(verdicts=verdict("failed")), decided(candidate=BASE)]
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


def test_the_duel_is_worked_by_hand() -> None:
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


def test_items_that_one_side_cannot_take_are_left_out_of_the_duel_and_counted() -> None:
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


@pytest.mark.parametrize(
    "opponent",
    [scores("base", [1, 0, 1]), scores("base", [1, 0, 1, 1, 1]), scores("base", [1, 0, 1, 0], "validation")],
)
def test_other_items_are_no_duel(opponent: pl.DataFrame) -> None:
    assert paired_comparison(opponent, scores("lora", [1, 0, 1, 0]), PromotionPolicy(), ("qa", "strict")) is None
