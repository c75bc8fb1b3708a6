"""The alias moves once, back as asked, and hands are noticed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest

from synth_assets.promotion.contenders import APPROVED_BY, CHAMPION, contender
from synth_assets.promotion.succession import Occasion, SuccessionError, moved_by_hand, rollback_decision, succeed
from synth_assets.records import AdapterRecord, ChampionRecord, Clause, Decision, Metric


class MemoryRegistry:
    """Versions 1 to 3 and aliases, in memory."""

    def __init__(self) -> None:
        self.tags = {
            n: {
                "asset": f"adapter_{n}",
                "fingerprint": f"f{n}",
                "role": "candidate",
                "data_version": f"d{n}",
                "data_versions": "{}",
            }
            for n in "123"
        }
        self.aliases: dict[str, str] = {}

    def alias(self, name: str) -> str | None:
        return self.aliases.get(name)

    def set_alias(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        self.tag_version(version, tags)
        self.aliases[name] = version

    def remove_alias(self, name: str) -> None:
        del self.aliases[name]

    def version_tags(self, version: str) -> dict[str, str]:
        return self.tags[version]

    def tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        self.tags[version].update(tags)

    def remove_tag(self, version: str, name: str) -> None:
        self.tags[version].pop(name, None)

    def scored_items(self, run_id: str) -> pl.DataFrame:
        raise KeyError(run_id)

    def log_training(
        self, record: AdapterRecord, folder: Path, curve: Sequence[Mapping[str, float]], tags: Mapping[str, str]
    ) -> tuple[str, str]:
        raise NotImplementedError

    def log_scores(self, metrics: Sequence[Metric], items: pl.DataFrame, versions: Mapping[str, str]) -> str:
        raise NotImplementedError


def promoted(version: str, opponent: str) -> Decision:
    clause = Clause("effect", passed=True, found="", wanted="")
    return Decision("promoted", f"adapter_{version}", version, "base", opponent, [clause], "better")


REFUSED = Decision("refused", "adapter_3", "3", "base", "", [Clause("effect", False, "", "")], "not better")


def at(hour: int) -> Occasion:
    return Occasion("ada", f"2026-11-20T{hour:02}:00:00+00:00", f"run-{hour}")


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def test_promotions_and_rollbacks_walk_the_same_way(registry: MemoryRegistry) -> None:
    first = succeed(registry, promoted("1", ""), None, at(1))
    second = succeed(registry, promoted("2", "1"), first, at(2))
    assert (second.action, second.previous_version, second.version) == ("promoted", "1", "2")
    assert (second.moved_by, second.moved_at, second.dagster_run_id) == ("ada", at(2).when, "run-2")
    back = succeed(registry, rollback_decision(registry, "ada"), second, at(3))
    assert (back.action, back.previous_version, back.version) == ("rolled back", "2", "1")
    assert contender(registry, "2").rolled_back
    base = succeed(registry, rollback_decision(registry, "ada"), back, at(4))
    assert (base.name, base.version, registry.alias(CHAMPION)) == ("base", "", None)
    with pytest.raises(SuccessionError, match="no champion to roll back"):
        rollback_decision(registry, "ada")


def test_a_yes_from_before_a_rollback_is_none_to_serving_again(registry: MemoryRegistry) -> None:
    first = succeed(registry, promoted("1", ""), None, at(1))
    registry.tag_version("2", {APPROVED_BY: "ada"})
    second = succeed(registry, promoted("2", "1"), first, at(2))
    succeed(registry, rollback_decision(registry, "ada"), second, at(3))
    assert (contender(registry, "2").rolled_back, contender(registry, "2").approved_by) == (True, "")
    registry.tag_version("2", {APPROVED_BY: "grace"})
    assert contender(registry, "2").approved_by == "grace"


def test_of_two_promotions_at_once_the_second_is_judged_again(registry: MemoryRegistry) -> None:
    first = succeed(registry, promoted("1", ""), None, at(1))
    with pytest.raises(SuccessionError, match="@champion is version 1"):
        succeed(registry, promoted("2", ""), first, at(2))
    assert registry.alias(CHAMPION) == "1"


def test_a_refusal_keeps_the_champion(registry: MemoryRegistry) -> None:
    nobody = succeed(registry, REFUSED, None, at(1))
    assert (nobody.action, nobody.name, nobody.version) == ("kept", "base", "")
    first = succeed(registry, promoted("1", ""), nobody, at(2))
    kept = succeed(registry, REFUSED, first, at(3))
    assert (kept.action, kept.version, kept.moved_at, kept.reason) == ("kept", "1", at(2).when, "not better")


def test_a_move_that_was_never_recorded_is_ours(registry: MemoryRegistry) -> None:
    first = succeed(registry, promoted("1", ""), None, at(1))
    lost = succeed(registry, promoted("2", "1"), first, at(2))
    again = succeed(registry, promoted("2", "1"), first, at(3))
    assert (again.action, again.previous_version, again.moved_at) == (lost.action, "1", at(2).when)
    lost = succeed(registry, rollback_decision(registry, "ada"), again, at(4))
    again = succeed(registry, REFUSED, again, at(5))
    assert (again.action, again.version, again.moved_at) == (lost.action, "1", at(4).when)


def test_a_hand_is_noticed_and_recorded(registry: MemoryRegistry) -> None:
    first = succeed(registry, promoted("1", ""), None, at(1))
    assert moved_by_hand(registry, first) is None
    registry.aliases[CHAMPION] = "3"
    assert moved_by_hand(registry, first) == "3"
    seen = succeed(registry, REFUSED, first, at(2))
    assert (seen.action, seen.previous_version, seen.version, seen.flagged) == ("moved by hand", "1", "3", True)
    assert seen.moved_by == "a person in MLflow"
    assert moved_by_hand(registry, seen) is None
    del registry.aliases[CHAMPION]
    assert moved_by_hand(registry, seen) == ""


def test_a_hand_that_goes_back_is_noticed_too(registry: MemoryRegistry) -> None:
    first = succeed(registry, promoted("1", ""), None, at(1))
    second: ChampionRecord = succeed(registry, promoted("2", "1"), first, at(2))
    back = succeed(registry, rollback_decision(registry, "ada"), second, at(3))
    registry.aliases[CHAMPION] = "2"
    assert moved_by_hand(registry, back) == "2"


def test_a_version_of_somebody_else_is_named(registry: MemoryRegistry) -> None:
    registry.tags["4"] = {}
    with pytest.raises(KeyError, match="version 4 was not registered by an adapter asset: it has no tag asset"):
        contender(registry, "4")
