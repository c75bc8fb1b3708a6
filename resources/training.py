"""Train adapters in a step: the training environment, the step's limits and the models of a deployment."""

from dataclasses import dataclass, replace
from typing import Protocol

import dagster as dg
import polars as pl

from resources.inference import Inference
from resources.served_model import flavour_of
from resources.step_meter import StepMeter, step_meter
from resources.storage import SynthHome
from synth_assets.registry.flavour import Flavour
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.budget import budget_of, tighter
from synth_assets.training.callbacks import TrainingObserver
from synth_assets.training.plan import TrainingContext, TrainingRequest
from synth_assets.training.train_or_load import References, references_or_failure, train_or_load_adapter


class TrainingLimits(Protocol):
    """Limits of one training, as in its run config."""

    max_minutes: float | None
    max_cost: float | None
    checkpoint_every_s: float


@dataclass(frozen=True)
class Trainer:
    """Trains adapters of one step; create it with `trainer`.

    Attributes:
        inference: loads the base models.
        context: environment of the trainings.
        meter: the step's time, cost and limits.
    """

    inference: Inference
    context: TrainingContext
    meter: StepMeter

    def train(
        self, request: TrainingRequest, *, force: bool, observer: TrainingObserver
    ) -> tuple[AdapterRecord, StoredAdapter | None]:
        """Return the adapter for a request, as `train_or_load_adapter`; with `force`, train it again."""
        context = replace(self.context, observer=observer)
        return train_or_load_adapter(request, context, lambda: self.inference.load_base(request.base), force=force)

    def flavour(self, base: ModelRecord) -> Flavour:
        """Return the MLflow flavour of adapters of a base model."""
        return flavour_of(self.inference, base)

    def references(self, pairs: pl.DataFrame, policy: AdapterRecord, base: ModelRecord) -> References:
        """Return REFERENCE_LOGPROBS of all pairs under a policy, or why there are none."""
        context = replace(self.context, limits=self.meter.budget)
        return references_or_failure(pairs, policy, base, context, lambda: self.inference.load_base(base))


def trainer(
    context: dg.AssetExecutionContext, inference: Inference, home: SynthHome, limits: TrainingLimits | None = None
) -> Trainer:
    """Return the trainer of a step; each training must fit its own limits and the rest of the run's.

    Args:
        context: the running asset.
        inference: the models of the deployment.
        home: where adapters and blocks are stored.
        limits: limits of each training; None for none.
    """
    tier, meter = inference.hardware.limits(), step_meter(context, inference.hardware.row())
    environment = TrainingContext(home.root(), home.adapters(), home.shards("adapters"), tier, context.log.info)
    own = budget_of(limits.max_minutes, limits.max_cost, tier.usd_per_hour) if limits else environment.budget
    environment = replace(environment, budget=tighter(own, meter.budget.tightest()))
    if limits:
        environment = replace(environment, checkpoint_every_s=limits.checkpoint_every_s)
    return Trainer(inference, environment, meter)
