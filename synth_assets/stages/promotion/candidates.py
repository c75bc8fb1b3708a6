"""Who competes for the alias, read from the registry, and what they scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from synth_assets.llm.protocols import Tracker
from synth_assets.reporting.escaping import terminal_line
from synth_assets.schemas.records import BASE, AdapterRecord, Comparison
from synth_assets.stages.promotion.model_card import attached_scores
from synth_assets.stages.promotion.on_demand_scoring import OnDemandScorer
from synth_assets.stages.promotion.policy import PromotionCandidate
from synth_assets.storage.lineage import TAINTED
from synth_assets.training.methods import ADAPTERS

CHAMPION = "champion"
CHALLENGER = "challenger"
ASKED_AGAIN = "asked."  # of a tag: the hash of newer items, and the MLflow run that holds the answers to them
APPROVED_BY = "approved_by"  # a tag that a person may set on a version in the MLflow UI
ROLLED_BACK_AT = "champion.rolled_back_at"
REGISTERED_WITH = {"asset", "fingerprint", "role", "data_version", "data_versions"}  # tags of every version of ours
LISTED = 12  # versions in a message


class Registry(Tracker, Protocol):
    """A tracker that also gives back what it was told."""

    def scored_items(self, run_id: str) -> pl.DataFrame:
        """The per-item table of a run of `log_scores`."""
        ...

    def tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        """Add tags to a version; KeyError where it does not exist."""
        ...

    def remove_tag(self, version: str, name: str) -> None:
        """Take a tag off a version; nothing happens where it has none of that name."""
        ...

    def remove_alias(self, name: str) -> None:
        """Let `name` point to nothing."""
        ...

    def model_tags(self) -> dict[str, str]:
        """The tags of the registered model; none where nothing was registered yet."""
        ...

    def tag_model(self, name: str, value: str) -> None:
        """Set one tag of the registered model."""
        ...

    def versions(self) -> dict[str, dict[str, str]]:
        """Every version that exists and its tags, oldest first."""
        ...


class VersionError(ValueError):
    """No version is named so; the message lists the versions there are."""


def version_number(registry: Registry, given: str, newest: Mapping[str, str]) -> str:
    """Return the number of the version that a person names.

    Args:
        registry: holds the versions.
        given: a number, an alias with or without its @, or an adapter asset.
        newest: adapter asset to its present version.

    Raises:
        VersionError: there is none, or no adapter asset registered it.
    """
    name, versions = given.strip(), registry.versions()
    alias = name.removeprefix("@")
    if alias.isascii() and alias.isdigit():
        number = str(int(alias))
    elif name in ADAPTERS:
        number = newest.get(name, "")
    else:
        number = registry.alias(alias) or ""
    if number in versions:
        if missing := REGISTERED_WITH - versions[number].keys():
            raise VersionError(
                f"version {number} was not registered by an adapter asset: it has no tag {min(missing)}; "
                f"{_listed(registry, versions)}"
            )
        return number
    problem = f"there is no version {number or repr(terminal_line(name))}"
    if not number and name.startswith("@"):
        problem = f"{terminal_line(name)} points to no version"
    elif not number and name in ADAPTERS:
        problem = f"{name} has no version: it was not trained yet, or failed"
    raise VersionError(f"{problem}; {_listed(registry, versions)}")


def _listed(registry: Registry, versions: Mapping[str, Mapping[str, str]]) -> str:
    aliases = {name: registry.alias(name) for name in (CHAMPION, CHALLENGER)}
    shown = [
        f"{number} ({', '.join([_made_by(tags), *(f'@{name}' for name, at in aliases.items() if at == number)])})"
        for number, tags in list(versions.items())[-LISTED:]
    ]
    earlier = f"{len(versions) - LISTED} earlier and " if len(versions) > LISTED else ""
    return f"the versions are {earlier}{', '.join(shown)}" if shown else "nothing was registered yet: synth run"


def _made_by(tags: Mapping[str, str]) -> str:
    return terminal_line(tags.get("asset", "not from an adapter asset"))


def promotion_candidate(registry: Registry, version: str, approved_by: str = "") -> PromotionCandidate:
    """A version of the registered model; KeyError where it does not exist or no adapter asset registered it.

    Args:
        registry: holds the version.
        version: "" is the base model, which is no version.
        approved_by: who says yes to it now; else the version's own tag counts.
    """
    if not version:
        return PromotionCandidate(BASE, "", "")
    tags = registry.version_tags(version)
    if missing := REGISTERED_WITH - tags.keys():
        raise KeyError(f"version {version} was not registered by an adapter asset: it has no tag {min(missing)}")
    return PromotionCandidate(
        name=tags["asset"],
        version=version,
        fingerprint=tags["fingerprint"],
        role="control" if tags["role"] == "control" else "candidate",
        approved_by=approved_by or terminal_line(tags.get(APPROVED_BY, "").strip()),
        rolled_back=ROLLED_BACK_AT in tags,
        tainted=tags.get(TAINTED, ""),
    )


def compared_candidate(
    registry: Registry, comparison: Comparison, adapters: Sequence[AdapterRecord], approved_by: str = ""
) -> PromotionCandidate | None:
    """The comparison's candidate as registered; None where there is none or it failed to train."""
    for record in adapters:
        if record.name == comparison.candidate and not record.failure:
            if record.model_version:
                return promotion_candidate(registry, record.model_version, approved_by)
            return PromotionCandidate(record.name, "", record.fingerprint, record.role, approved_by)
    return None


@dataclass(frozen=True)
class Scores:
    """What contenders scored on today's items; whoever was not asked them all is asked.

    Args:
        registry: holds what was scored before.
        table: ITEM_SCORES of today.
        comparison: its metrics name the items.
        examiner: asks.
    """

    registry: Registry
    table: pl.DataFrame
    comparison: Comparison
    examiner: OnDemandScorer

    def has(self, one: PromotionCandidate) -> bool:
        """Whether it was scored today."""
        return not self._today(one).is_empty()

    def of(self, one: PromotionCandidate) -> pl.DataFrame:
        """Its ITEM_SCORES of today, or of the run that scored it on the same items, or made now.

        Raises:
            WeightsError: it has to be asked and cannot be.
        """
        today = self._today(one)
        if not one.version or self._all_asked(today):
            return today
        items = {metric.data_hash for metric in self.comparison.metrics}
        tags = self.registry.version_tags(one.version)
        runs = [score.facts["run_id"] for score in attached_scores(tags) if score.facts.get("data_hash") in items]
        runs += [tags[f"{ASKED_AGAIN}{items_hash}"] for items_hash in items if f"{ASKED_AGAIN}{items_hash}" in tags]
        for run_id in dict.fromkeys(runs):
            before = self.registry.scored_items(run_id).filter(fingerprint=one.fingerprint)
            if self._all_asked(before):
                return before
        return self.examiner.test_scores(one, self._asked(self.table))

    def sealed(self, one: PromotionCandidate) -> pl.DataFrame:
        """Its ITEM_SCORES on the sealed items, made once; no rows where there is none; errors as in `of`."""
        return self.examiner.sealed_scores(one)

    def _today(self, one: PromotionCandidate) -> pl.DataFrame:
        if one.name == BASE:
            return self.table.filter(model=BASE)
        return self.table.filter(fingerprint=one.fingerprint)

    def _asked(self, scores: pl.DataFrame) -> pl.DataFrame:
        asked = scores.filter(split="test").select("suite", "item_id", "metric", "cluster")
        return asked.unique().sort(asked.columns)

    def _all_asked(self, scores: pl.DataFrame) -> bool:
        return self._asked(scores).equals(self._asked(self.table))
