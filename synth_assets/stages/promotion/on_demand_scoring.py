"""Contenders asked what a decision needs and nobody asked them before: new test items, sealed items."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.evals.scoring import EvaluatedModel, EvaluationSpec, metrics, score_model, sealed_scores
from synth_assets.schemas.records import Metric
from synth_assets.stages.promotion.policy import PromotionCandidate
from synth_assets.storage.blocks import Progress
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.manifests import content_hash


class WeightsError(RuntimeError):
    """A contender cannot be asked; the message says why and what to do."""


@dataclass(frozen=True)
class OnDemandScorer:
    """Asks one contender at a time; answers that exist under the same weights are not made again.

    Args:
        items: BENCHMARK_ITEMS of today.
        spec: how today's scores were made.
        folder: where blocks of answers are kept.
        subject: a contender as a model that can be asked; raises WeightsError.
        keep: tells the registry what a contender scored, with the items that prove it.
        models_asked: how many models the registry has scores of on these sealed items.
        turn: held while a model runs.
        progress: receives a line each few seconds.
        budget: is asked before each block of answers.
    """

    items: pl.DataFrame
    spec: EvaluationSpec
    folder: Path
    subject: Callable[[PromotionCandidate], EvaluatedModel]
    keep: Callable[[PromotionCandidate, list[Metric], pl.DataFrame], None]
    models_asked: Callable[[], int]
    turn: Callable[[], AbstractContextManager[None]]
    progress: Progress
    budget: WorkBudget | None = None

    def test_scores(self, one: PromotionCandidate, asked: pl.DataFrame) -> pl.DataFrame:
        """ITEM_SCORES on the test items whose `item_id` is in `asked`."""
        subject = self.subject(one)
        items = self.items.filter(split="test").join(asked, on="item_id", how="semi", maintain_order="left")
        everything = replace(self.spec, test_items=0)
        with self.turn():
            scores = score_model(subject, items, everything, **self._where())
        return self._kept(one, subject, scores)

    def sealed_scores(self, one: PromotionCandidate) -> pl.DataFrame:
        """ITEM_SCORES on every sealed item; no rows where there is none."""
        subject = self.subject(one)
        with self.turn():
            scores = sealed_scores(subject, self.items, self.spec, **self._where())
        return self._kept(one, subject, scores) if scores.height else scores

    def _where(self) -> dict[str, Any]:
        return {"folder": self.folder, "progress": self.progress, "budget": self.budget}

    def _kept(self, one: PromotionCandidate, subject: EvaluatedModel, scores: pl.DataFrame) -> pl.DataFrame:
        found = metrics(scores, engines={subject.name: subject.engine}, data_hash=content_hash(self.items))
        self.keep(one, found, scores)
        return scores
