"""The policy: each clause alone flips the decision."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from synth_assets.promotion.duel import fight
from synth_assets.promotion.policy import Contender, PromotionPolicy, decide, outcome_version
from synth_assets.records import ITEM_SCORES, Decision, PairedTest, Verdict

BASE = Contender("base", "", "")
TAINTED = Contender("lora_adapter", "2", "f2", tainted="1 recalled row: a")
GOOD: dict[str, Any] = {
    "candidate": Contender("dpo_adapter", "3", "f3"),
    "opponent": Contender("lora_adapter", "2", "f2"),
    "duel": PairedTest("lora_adapter", "dpo_adapter", "qa", "test", "strict", 400, 10, 40, 0.075, 0.00003),
    "verdicts": [Verdict("sft_dataset", "v", "no_leak", "passed"), Verdict("sft_dataset", "v", "long", "warned")],
    "policy": PromotionPolicy(),
}


def decided(**changes: Any) -> Decision:  # noqa: ANN401
    return decide(**{**GOOD, **changes})


def test_a_good_candidate_is_promoted() -> None:
    decision = decided()
    assert (decision.outcome, decision.candidate_version, decision.opponent_version) == ("promoted", "3", "2")
    assert all(clause.passed for clause in decision.clauses)
    assert decided(opponent=BASE).outcome == "promoted", "without a champion the opponent is the base"


def verdict(status: str) -> list[Verdict]:
    return [*GOOD["verdicts"], Verdict("raw_instructions[A]", "v", "rows_unique", status)]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("clause", "changes"),
    [
        ("role", {"candidate": replace(GOOD["candidate"], role="control")}),
        ("registered", {"candidate": replace(GOOD["candidate"], version="")}),
        ("same items", {"duel": None}),
        ("same items", {"duel": replace(GOOD["duel"], n=99)}),
        ("effect", {"duel": replace(GOOD["duel"], difference=0.0199)}),
        ("effect", {"duel": replace(GOOD["duel"], difference=-0.075)}),
        ("not by chance", {"duel": replace(GOOD["duel"], p_value=0.051)}),
        ("checks", {"verdicts": verdict("failed")}),
        ("checks", {"verdicts": verdict("missing")}),
        ("checks", {"verdicts": []}),
        ("approval", {"policy": PromotionPolicy(approval="human")}),
        ("not rolled back", {"candidate": replace(GOOD["candidate"], rolled_back=True)}),
        ("not tainted", {"candidate": replace(GOOD["candidate"], tainted="1 recalled row: a")}),
        ("not tainted", {"candidate": replace(GOOD["candidate"], tainted="1 recalled row: a", approved_by="ada")}),
        ("effect", {"opponent": TAINTED, "duel": replace(GOOD["duel"], difference=-0.0201, p_value=1.0)}),
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
        {"duel": replace(GOOD["duel"], n=100, difference=0.02, p_value=0.05)},
        {"policy": PromotionPolicy(approval="human"), "candidate": replace(GOOD["candidate"], approved_by="ada")},
        {"candidate": replace(GOOD["candidate"], rolled_back=True, approved_by="ada")},
        {"opponent": TAINTED, "duel": replace(GOOD["duel"], difference=-0.02, p_value=1.0)},
    ],
)
def test_the_other_side_of_each_edge(changes: dict[str, Any]) -> None:
    assert decided(**changes).outcome == "promoted"


def test_the_champion_itself_is_unchanged_and_nobody_is_refused() -> None:
    assert decided(opponent=GOOD["candidate"]).outcome == "unchanged"
    nobody = decided(candidate=None)
    assert (nobody.outcome, [c.name for c in nobody.clauses]) == ("refused", ["candidate"])


def test_a_decision_that_was_carried_out_keeps_its_version() -> None:
    promoted, unchanged = decided(), decided(opponent=GOOD["candidate"])
    assert outcome_version(promoted) == outcome_version(unchanged)
    others = [decided(verdicts=[]), decided(verdicts=verdict("failed")), decided(candidate=BASE)]
    assert len({outcome_version(decision) for decision in (promoted, *others)}) == 4


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"minimum_effect": 1.1}, {"minimum_items": 0}])
def test_a_policy_out_of_range_names_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PromotionPolicy(**wrong)


def scores(model: str, values: list[float | None], split: str = "test") -> pl.DataFrame:
    rows = [(model, model, "qa", split, f"i{n}", f"c{n}", "strict", v, "", "stop") for n, v in enumerate(values)]
    return pl.DataFrame(rows, schema=ITEM_SCORES, orient="row")


def test_the_duel_is_worked_by_hand() -> None:
    found = fight(
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


def test_scores_between_0_and_1_are_resampled() -> None:
    found = fight(
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
    assert fight(opponent, scores("lora", [1, 0, 1, 0]), PromotionPolicy(), ("qa", "strict")) is None
