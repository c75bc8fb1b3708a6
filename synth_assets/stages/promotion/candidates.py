"""Promotion candidates of the model registry and their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from synth_assets.llm.protocols import Tracker
from synth_assets.reporting.escaping import terminal_line
from synth_assets.schemas.records import BASE, AdapterRecord, Comparison
from synth_assets.stages.promotion.model_card import attached_scores
from synth_assets.stages.promotion.on_demand_scoring import RESCORED, OnDemandScorer
from synth_assets.stages.promotion.policy import PromotionCandidate
from synth_assets.storage.lineage import TAINTED
from synth_assets.training.methods import ADAPTERS

CHAMPION = "champion"
CHALLENGER = "challenger"
APPROVED_BY = "approved_by"  # a tag that a person may set on a version in the MLflow UI
ROLLED_BACK_AT = "champion.rolled_back_at"
REQUIRED_TAGS = {"asset", "fingerprint", "role", "data_version", "data_versions"}  # set by every adapter asset
MAX_LISTED = 12  # versions listed in a message


class Registry(Tracker, Protocol):
    """A tracker that also reads and removes what it has stored."""

    def scored_items(self, run_id: str) -> pl.DataFrame:
        """Return the per-item table of a run of `log_scores`."""
        ...

    def tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        """Add tags to a version; raise KeyError if it does not exist."""
        ...

    def remove_tag(self, version: str, name: str) -> None:
        """Remove a tag of a version if it is set."""
        ...

    def remove_alias(self, name: str) -> None:
        """Remove the alias `name`."""
        ...

    def model_tags(self) -> dict[str, str]:
        """Return the tags of the registered model; empty if nothing was registered yet."""
        ...

    def tag_model(self, name: str, value: str) -> None:
        """Set a tag of the registered model."""
        ...

    def versions(self) -> dict[str, dict[str, str]]:
        """Return the tags of every existing version, oldest first."""
        ...


class VersionError(ValueError):
    """There is no such version; the message lists the existing versions."""


def version_number(registry: Registry, requested: str, newest: Mapping[str, str]) -> str:
    """Return the number of a version.

    Args:
        registry: the model registry.
        requested: a version number, an alias with or without its @, or an adapter asset.
        newest: present version of each adapter asset.

    Raises:
        VersionError: there is no such version, or no adapter asset registered it.
    """
    name, versions = requested.strip(), registry.versions()
    alias = name.removeprefix("@")
    if alias.isascii() and alias.isdigit():
        number = str(int(alias))
    elif name in ADAPTERS:
        number = newest.get(name, "")
    else:
        number = registry.alias(alias) or ""
    if number in versions:
        if missing := REQUIRED_TAGS - versions[number].keys():
            raise VersionError(
                f"version {number} was not registered by an adapter asset: it has no tag {min(missing)}; "
                f"{_listed(registry, versions)}"
            )
        return number
    problem = f"there is no version {number or repr(terminal_line(name))}"
    if not number and name.startswith("@"):
        problem = f"{terminal_line(name)} points to no version"
    elif not number and name in ADAPTERS:
        problem = f"{name} has no version: it was not trained yet, or its training failed"
    raise VersionError(f"{problem}; {_listed(registry, versions)}")


def _listed(registry: Registry, versions: Mapping[str, Mapping[str, str]]) -> str:
    aliases = {name: registry.alias(name) for name in (CHAMPION, CHALLENGER)}
    shown = [
        f"{number} ({', '.join([_made_by(tags), *(f'@{name}' for name, at in aliases.items() if at == number)])})"
        for number, tags in list(versions.items())[-MAX_LISTED:]
    ]
    earlier = f"{len(versions) - MAX_LISTED} earlier and " if len(versions) > MAX_LISTED else ""
    return f"the versions are {earlier}{', '.join(shown)}" if shown else "no version was registered yet: synth run"


def _made_by(tags: Mapping[str, str]) -> str:
    return terminal_line(tags.get("asset", "not from an adapter asset"))


def promotion_candidate(registry: Registry, version: str, approved_by: str = "") -> PromotionCandidate:
    """Return a version of the registered model as a promotion candidate.

    Args:
        registry: the model registry.
        version: version number; "" is the base model.
        approved_by: who approves it in this run; defaults to the version's tag.

    Raises:
        KeyError: the version does not exist, or no adapter asset registered it.
    """
    if not version:
        return PromotionCandidate(BASE, "", "")
    tags = registry.version_tags(version)
    if missing := REQUIRED_TAGS - tags.keys():
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
    """Return the comparison's candidate as registered; None if there is none or its training failed."""
    for record in adapters:
        if record.name == comparison.candidate and not record.failure:
            if record.model_version:
                return promotion_candidate(registry, record.model_version, approved_by)
            return PromotionCandidate(record.name, "", record.fingerprint, record.role, approved_by)
    return None


@dataclass(frozen=True)
class Scores:
    """Scores of candidates on today's items; missing ones are computed.

    Args:
        registry: holds earlier scores.
        table: ITEM_SCORES of today.
        comparison: its metrics name the hash of the items.
        scorer: scores a model on missing items.
    """

    registry: Registry
    table: pl.DataFrame
    comparison: Comparison
    scorer: OnDemandScorer

    def has(self, candidate: PromotionCandidate) -> bool:
        """Return whether the candidate was scored today."""
        return not self._today(candidate).is_empty()

    def of(self, candidate: PromotionCandidate) -> pl.DataFrame:
        """Return ITEM_SCORES of today, or of an earlier run on the same items, or computed now.

        Raises:
            WeightsError: scores are missing and the model cannot be loaded.
        """
        today = self._today(candidate)
        if not candidate.version or self._is_complete(today):
            return today
        items = {metric.data_hash for metric in self.comparison.metrics}
        tags = self.registry.version_tags(candidate.version)
        runs = [score.facts["run_id"] for score in attached_scores(tags) if score.facts.get("data_hash") in items]
        runs += [tags[f"{RESCORED}{items_hash}"] for items_hash in items if f"{RESCORED}{items_hash}" in tags]
        for run_id in dict.fromkeys(runs):
            before = self.registry.scored_items(run_id).filter(fingerprint=candidate.fingerprint)
            if self._is_complete(before):
                return before
        return self.scorer.test_scores(candidate, self._test_items(self.table))

    def sealed(self, candidate: PromotionCandidate) -> pl.DataFrame:
        """Return ITEM_SCORES on the sealed items, computed once; empty without sealed items. Errors as in `of`."""
        return self.scorer.sealed_scores(candidate)

    def _today(self, candidate: PromotionCandidate) -> pl.DataFrame:
        if candidate.name == BASE:
            return self.table.filter(model=BASE)
        return self.table.filter(fingerprint=candidate.fingerprint)

    def _test_items(self, scores: pl.DataFrame) -> pl.DataFrame:
        items = scores.filter(split="test").select("suite", "item_id", "metric", "cluster")
        return items.unique().sort(items.columns)

    def _is_complete(self, scores: pl.DataFrame) -> bool:
        return self._test_items(scores).equals(self._test_items(self.table))
