"""Who competes for the alias, read from the registry, and what they scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from synth_assets.lineage import TAINTED
from synth_assets.promotion.examination import Examiner
from synth_assets.promotion.policy import Contender
from synth_assets.protocols import Tracker
from synth_assets.records import BASE, AdapterRecord, Comparison

CHAMPION = "champion"
CHALLENGER = "challenger"
APPROVED_BY = "approved_by"  # a tag that a person may set on a version in the MLflow UI
ROLLED_BACK_AT = "champion.rolled_back_at"


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


def contender(registry: Registry, version: str, approved_by: str = "") -> Contender:
    """A version of the registered model; KeyError where it does not exist or no adapter asset registered it.

    Args:
        registry: holds the version.
        version: "" is the base model, which is no version.
        approved_by: who says yes to it now; else the version's own tag counts.
    """
    if not version:
        return Contender(BASE, "", "")
    tags = registry.version_tags(version)
    if missing := {"asset", "fingerprint", "role", "data_version", "data_versions"} - tags.keys():
        raise KeyError(f"version {version} was not registered by an adapter asset: it has no tag {min(missing)}")
    return Contender(
        name=tags["asset"],
        version=version,
        fingerprint=tags["fingerprint"],
        role="control" if tags["role"] == "control" else "candidate",
        approved_by=approved_by or tags.get(APPROVED_BY, ""),
        rolled_back=ROLLED_BACK_AT in tags,
        tainted=tags.get(TAINTED, ""),
    )


def compared_candidate(
    registry: Registry, comparison: Comparison, adapters: Sequence[AdapterRecord], approved_by: str = ""
) -> Contender | None:
    """The comparison's candidate as registered; None where there is none or it failed to train."""
    for record in adapters:
        if record.name == comparison.candidate and not record.failure:
            if record.model_version:
                return contender(registry, record.model_version, approved_by)
            return Contender(record.name, "", record.fingerprint, record.role, approved_by)
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
    examiner: Examiner

    def has(self, one: Contender) -> bool:
        """Whether it was scored today."""
        return not self._today(one).is_empty()

    def of(self, one: Contender) -> pl.DataFrame:
        """Its ITEM_SCORES of today, or of the run that scored it on the same items, or made now.

        Raises:
            WeightsError: it has to be asked and cannot be.
        """
        today = self._today(one)
        if not one.version or self._all_asked(today):
            return today
        items = {metric.data_hash for metric in self.comparison.metrics}
        for name, text in self.registry.version_tags(one.version).items():
            if name.startswith("score.") and (attached := json.loads(text)).get("data_hash") in items:
                before = self.registry.scored_items(attached["run_id"]).filter(fingerprint=one.fingerprint)
                if self._all_asked(before):
                    return before
        return self.examiner.test_scores(one, self._asked(self.table))

    def sealed(self, one: Contender) -> pl.DataFrame:
        """Its ITEM_SCORES on the sealed items, made once; no rows where there is none; errors as in `of`."""
        return self.examiner.sealed_scores(one)

    def _today(self, one: Contender) -> pl.DataFrame:
        if one.name == BASE:
            return self.table.filter(model=BASE)
        return self.table.filter(fingerprint=one.fingerprint)

    def _asked(self, scores: pl.DataFrame) -> pl.DataFrame:
        asked = scores.filter(split="test").select("suite", "item_id", "metric", "cluster")
        return asked.unique().sort(asked.columns)

    def _all_asked(self, scores: pl.DataFrame) -> bool:
        return self._asked(scores).equals(self._asked(self.table))
