"""Moves of the `@champion` alias: promotions, rollbacks and moves made in MLflow."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from synth_assets.schemas.records import AuditEntry, ChampionRecord, Clause, Decision
from synth_assets.stages.promotion.alias import apply_decision, moved_by_hand
from synth_assets.stages.promotion.candidates import APPROVED_BY, CHAMPION, promotion_candidate
from synth_assets.stages.promotion.policy import PromotionCandidate
from synth_assets.stages.promotion.rollback import FILES_CLAUSE, RollbackRequest, rollback_decision
from synth_assets.stages.promotion.service_history import (
    ServiceHistoryError,
    rollback_targets,
    services,
    serving_version,
)
from tests.support.registry import MemoryRegistry


def promoted(version: str, opponent: str) -> Decision:
    clause = Clause("effect", passed=True, actual="", expected="")
    return Decision("promoted", f"adapter_{version}", version, "base", opponent, [clause], "better")


REFUSED = Decision("refused", "adapter_3", "3", "base", "", [Clause("effect", False, "", "")], "not better")


def at(hour: int) -> AuditEntry:
    return AuditEntry("ada", (datetime(2026, 11, 20, tzinfo=UTC) + timedelta(hours=hour)).isoformat(), f"run-{hour}")


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def test_rollbacks_undo_promotions_in_reverse_order(registry: MemoryRegistry) -> None:
    first = apply_decision(registry, promoted("1", ""), None, at(1))
    second = apply_decision(registry, promoted("2", "1"), first, at(2))
    assert (second.action, second.previous_version, second.version) == ("promoted", "1", "2")
    assert (second.moved_by, second.moved_at, second.dagster_run_id) == ("ada", at(2).when, "run-2")
    back = apply_decision(registry, rollback_decision(registry, "ada"), second, at(3))
    assert (back.action, back.previous_version, back.version) == ("rolled back", "2", "1")
    assert promotion_candidate(registry, "2").rolled_back
    base = apply_decision(registry, rollback_decision(registry, "ada"), back, at(4))
    assert (base.name, base.version, registry.alias(CHAMPION)) == ("base", "", None)
    with pytest.raises(ServiceHistoryError, match="no champion to roll back"):
        rollback_decision(registry, "ada")


def test_an_approval_from_before_a_rollback_does_not_count(registry: MemoryRegistry) -> None:
    first = apply_decision(registry, promoted("1", ""), None, at(1))
    registry.tag_version("2", {APPROVED_BY: "ada"})
    second = apply_decision(registry, promoted("2", "1"), first, at(2))
    apply_decision(registry, rollback_decision(registry, "ada"), second, at(3))
    assert (promotion_candidate(registry, "2").rolled_back, promotion_candidate(registry, "2").approved_by) == (
        True,
        "",
    )
    registry.tag_version("2", {APPROVED_BY: "grace"})
    assert promotion_candidate(registry, "2").approved_by == "grace"


def test_a_decision_against_another_champion_is_not_applied(registry: MemoryRegistry) -> None:
    first = apply_decision(registry, promoted("1", ""), None, at(1))
    with pytest.raises(ServiceHistoryError, match="@champion is version 1"):
        apply_decision(registry, promoted("2", ""), first, at(2))
    assert registry.alias(CHAMPION) == "1"


def test_a_refusal_keeps_the_champion(registry: MemoryRegistry) -> None:
    nobody = apply_decision(registry, REFUSED, None, at(1))
    assert (nobody.action, nobody.name, nobody.version) == ("kept", "base", "")
    first = apply_decision(registry, promoted("1", ""), nobody, at(2))
    kept = apply_decision(registry, REFUSED, first, at(3))
    assert (kept.action, kept.version, kept.moved_at, kept.reason) == ("promoted", "1", at(2).when, "better")
    assert kept.last is not None
    assert (kept.last.outcome, kept.last.candidate_version, kept.last.reason) == ("refused", "3", "not better")
    assert replace(kept, last=first.last) == first


def test_a_move_of_a_killed_run_is_not_a_manual_move(registry: MemoryRegistry) -> None:
    first = apply_decision(registry, promoted("1", ""), None, at(1))
    lost = apply_decision(registry, promoted("2", "1"), first, at(2))
    again = apply_decision(registry, promoted("2", "1"), first, at(3))
    assert (again.action, again.previous_version, again.moved_at) == (lost.action, "1", at(2).when)
    lost = apply_decision(registry, rollback_decision(registry, "ada"), again, at(4))
    again = apply_decision(registry, REFUSED, again, at(5))
    assert (again.action, again.version, again.moved_at) == (lost.action, "1", at(4).when)


def test_a_manual_move_is_detected_and_recorded(registry: MemoryRegistry) -> None:
    first = apply_decision(registry, promoted("1", ""), None, at(1))
    assert moved_by_hand(registry, first) is None
    registry.aliases[CHAMPION] = "3"
    assert moved_by_hand(registry, first) == "3"
    seen = apply_decision(registry, REFUSED, first, at(2))
    assert (seen.action, seen.previous_version, seen.version, seen.flagged) == ("moved by hand", "1", "3", True)
    assert seen.moved_by == "a person in MLflow"
    assert moved_by_hand(registry, seen) is None
    del registry.aliases[CHAMPION]
    assert moved_by_hand(registry, seen) == ""


def test_a_manual_move_to_an_earlier_version_is_detected(registry: MemoryRegistry) -> None:
    first = apply_decision(registry, promoted("1", ""), None, at(1))
    second: ChampionRecord = apply_decision(registry, promoted("2", "1"), first, at(2))
    back = apply_decision(registry, rollback_decision(registry, "ada"), second, at(3))
    registry.aliases[CHAMPION] = "2"
    assert moved_by_hand(registry, back) == "2"


def test_a_version_without_an_adapter_asset_is_an_error(registry: MemoryRegistry) -> None:
    registry.tags["4"] = {}
    with pytest.raises(KeyError, match="version 4 was not registered by an adapter asset: it has no tag asset"):
        promotion_candidate(registry, "4")


def clause(name: str, *, passed: bool = False, found: str = "bad") -> Clause:
    return Clause(name, passed, found, "good")


class Walk:
    """A registry and a sequence of moves in it, one hour apart."""

    def __init__(self, registry: MemoryRegistry, versions: int = 5) -> None:
        self.registry, self.hour, self.record = registry, 0, None
        made = registry.tags["1"]
        for number in map(str, range(1, versions + 1)):
            registry.tags[number] = {**made, "asset": f"adapter_{number}", "fingerprint": f"f{number}"}

    def decide(self, decision: Decision) -> ChampionRecord:
        self.hour += 1
        self.record = apply_decision(self.registry, decision, self.record, at(self.hour))
        assert self.record.version == serving_version(self.registry)
        return self.record

    def promote(self, *versions: str) -> None:
        for version in versions:
            self.decide(promoted(version, serving_version(self.registry)))

    def back(
        self,
        asked: RollbackRequest | None = None,
        protections: Callable[[PromotionCandidate], Sequence[Clause]] = lambda _: (),
    ) -> ChampionRecord:
        return self.decide(rollback_decision(self.registry, "ada", asked, protections))

    def hand(self, version: str) -> None:
        if version:
            self.registry.aliases[CHAMPION] = version
        else:
            del self.registry.aliases[CHAMPION]


@pytest.fixture
def walk(registry: MemoryRegistry) -> Walk:
    return Walk(registry)


def test_a_rollback_after_a_manual_move_returns_to_the_version_before_it(walk: Walk) -> None:
    walk.promote("1", "2")
    walk.hand("3")
    assert (walk.back().version, walk.back().version, walk.back().version) == ("2", "1", "")
    with pytest.raises(ServiceHistoryError, match="the base model serves, and no version that served before is left"):
        walk.back()


def test_a_rollback_undoes_a_manual_move_to_an_earlier_version(walk: Walk) -> None:
    walk.promote("1", "2")
    walk.hand("1")
    assert (walk.back().version, walk.back().version, walk.back().version) == ("2", "1", "")


def test_recorded_manual_moves_are_rollback_targets(walk: Walk) -> None:
    walk.promote("1")
    walk.hand("2")
    walk.decide(REFUSED)
    walk.hand("4")
    walk.promote("5")
    assert [walk.back().version for _ in range(4)] == ["4", "2", "1", ""]


def test_a_rollback_restores_an_alias_that_was_removed_in_mlflow(walk: Walk) -> None:
    walk.promote("1", "2")
    walk.hand("")
    seen = walk.decide(REFUSED)
    assert (seen.version, seen.action, seen.reason) == ("", "moved by hand", "@champion was removed in MLflow")
    assert (walk.back().version, walk.back().version) == ("2", "1")


def test_a_deleted_version_is_skipped_with_the_reason(walk: Walk) -> None:
    walk.promote("1", "2", "3")
    walk.registry.delete("2")
    back = walk.back()
    assert back.version == "1"
    assert "skipped version 2 (deleted in MLflow)" in back.reason


def test_a_rollback_from_a_deleted_champion_returns_to_the_version_before(walk: Walk) -> None:
    walk.promote("1", "2")
    walk.registry.delete("2")
    assert services(walk.registry)[-1].reason == "version 2, which served, was deleted in MLflow"
    assert walk.back().version == "1"


def test_an_alias_to_a_missing_version_means_the_base_serves(walk: Walk) -> None:
    walk.promote("1")
    walk.hand("77")
    assert serving_version(walk.registry) == ""
    assert services(walk.registry)[-1].reason == "@champion points to version 77, which does not exist"
    walk.promote("2")
    assert walk.back().version == "1"


def test_a_reused_number_with_another_fingerprint_is_another_version(walk: Walk) -> None:
    walk.promote("1", "2", "3")
    walk.registry.tags["2"] = {**walk.registry.tags["2"], "fingerprint": "other"}
    assert walk.back().version == "1"


def test_a_rolled_back_version_is_no_rollback_target(walk: Walk) -> None:
    walk.promote("1", "2")
    walk.back()
    walk.promote("3")
    assert [one.version for one in rollback_targets(services(walk.registry))] == ["1"]
    assert walk.back().version == "1"


def test_a_version_that_fails_a_clause_is_skipped_with_the_reason(walk: Walk) -> None:
    walk.promote("1", "2", "3")

    def taint(candidate: PromotionCandidate) -> list[Clause]:
        return [clause("no recalled rows", passed=candidate.version != "2", found="1 recalled row: r1")]

    back = walk.back(protections=taint)
    assert back.version == "1"
    assert (
        back.reason
        == "rolled back by ada from version 3 to version 1; skipped version 2 (no recalled rows: 1 recalled row: r1)"
    )
    assert [one.name for one in back.clauses] == ["rollback requested", "no recalled rows"]


def test_the_base_serves_if_every_version_fails_a_clause(walk: Walk) -> None:
    walk.promote("1", "2")
    back = walk.back(protections=lambda _: [clause(FILES_CLAUSE, found="lost")])
    assert back.version == ""
    assert back.reason == (
        "rolled back by ada from version 2 to the base model; skipped version 1 (files intact: lost); "
        "no other version served before"
    )
    only = Walk(MemoryRegistry())
    only.promote("1")
    assert only.back().reason.endswith("to the base model; no version that served before is left")


def test_a_requested_version_is_refused_unless_forced(walk: Walk) -> None:
    walk.promote("1", "2", "3")
    bad = lambda _: [clause("no recalled rows")]  # noqa: E731
    refused = rollback_decision(walk.registry, "ada", RollbackRequest("1"), bad)
    assert (refused.outcome, refused.candidate_version) == ("refused", "1")
    assert walk.decide(refused).version == "3"
    with pytest.raises(ServiceHistoryError, match="--force --reason"):
        rollback_decision(walk.registry, "ada", RollbackRequest("1", force=True), bad)
    forced = walk.back(RollbackRequest("1", force=True, reason="harmless row"), bad)
    assert (forced.version, forced.clauses[1].passed) == ("1", True)
    assert forced.clauses[1].actual == "bad; accepted by ada: harmless row"
    assert "harmless row" in forced.reason
    assert walk.back().version == "", "the services in between were discarded"


def test_missing_files_cannot_be_forced(walk: Walk) -> None:
    walk.promote("1", "2")
    asked = RollbackRequest("1", force=True, reason="now")
    refused = rollback_decision(walk.registry, "ada", asked, lambda _: [clause(FILES_CLAUSE)])
    assert refused.outcome == "refused"


def test_a_rollback_goes_to_the_base_but_not_to_a_version_that_never_served(walk: Walk) -> None:
    walk.promote("1", "2")
    with pytest.raises(ServiceHistoryError, match=r"served before the present one \(1\) or to base, got version 4"):
        walk.back(RollbackRequest("4"))
    assert walk.back(RollbackRequest("base")).version == ""


def test_a_registry_without_a_log_is_read_from_version_tags(walk: Walk) -> None:
    walk.promote("1", "2", "3")
    walk.back()
    walk.promote("4")
    walk.registry.log.clear()
    assert [one.version for one in services(walk.registry)] == ["1", "2", "4"]
    assert [walk.back().version for _ in range(3)] == ["2", "1", ""]


def test_a_damaged_log_entry_is_named_in_the_error(walk: Walk) -> None:
    walk.promote("1")
    walk.registry.log["champion.move.000001"] = "oops"
    with pytest.raises(ValueError, match=r"champion\.move\.000001"):
        services(walk.registry)
    walk.registry.log = {"champion.move.note": "mine"}
    assert [one.version for one in services(walk.registry)] == ["1"]


def test_a_manual_move_is_flagged_when_a_decision_refuses_it(walk: Walk) -> None:
    walk.promote("1")
    walk.hand("3")
    assert not walk.decide(replace(REFUSED, candidate_version="2")).flagged
    judged = walk.decide(replace(REFUSED, opponent_version="1"))
    assert (judged.flagged, judged.reason) == (
        True,
        "@champion was moved to version 3 in MLflow; decision since: not better",
    )
    assert walk.decide(replace(REFUSED, candidate_version="2")).flagged


def test_a_typed_reason_is_stored_as_one_plain_line(walk: Walk) -> None:
    walk.promote("1", "2")
    walk.back(RollbackRequest("1", reason="\x1b[31mred\nserves    version 9"))
    assert "\x1b" not in str(walk.registry.log) + str(walk.registry.tags)
    assert "\n" not in services(walk.registry)[-1].reason


def test_later_decisions_keep_the_record_of_the_serving_version(walk: Walk) -> None:
    """After random decisions the record still describes the move by which the version serves."""
    random = Random(7)
    serving = walk.decide(REFUSED)
    for _ in range(200):
        now = serving_version(walk.registry)
        match random.choice(["promoted", "unchanged", "refused", "hand", "back"]):
            case "promoted":
                version = random.choice([n for n in walk.registry.tags if n != now])
                serving = walk.decide(promoted(version, now))
                assert (serving.version, serving.reason, len(serving.clauses)) == (version, "better", 1)
            case "unchanged" if now:
                decision = Decision("unchanged", f"adapter_{now}", now, "", now, [], "is the champion already")
                assert replace(walk.decide(decision), last=None) == replace(serving, last=None)
            case "hand":
                version = random.choice([n for n in walk.registry.tags if n != now])
                walk.hand(version)
                serving = walk.decide(replace(REFUSED, candidate_version="9", opponent_version=version))
                assert (serving.version, serving.action, serving.previous_version) == (version, "moved by hand", now)
            case "back" if now:
                way = rollback_targets(services(walk.registry))
                serving = walk.back()
                assert serving.version == (way[0].version if way else "")
            case _:
                other = replace(REFUSED, candidate_version="9", opponent_version=now)
                assert replace(walk.decide(other), last=None) == replace(serving, last=None)
