"""Build the models to evaluate, the base model or the base with an adapter, and the services to score them."""

from functools import partial
from pathlib import Path

import dagster as dg
import polars as pl

from resources.gpu_slots import gpu_slot
from resources.inference import Inference
from resources.step_meter import step_meter
from resources.storage import SynthHome
from synth_assets.evals.scoring import EvaluatedModel
from synth_assets.evals.services import ScoringServices
from synth_assets.schemas.preference_rounds import ON_POLICY
from synth_assets.schemas.records import BASE, AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.manifests import folder_hash, read_manifest
from synth_assets.training.methods import ADAPTERS

ADAPTER_INS = {name: dg.AssetIn(dagster_type=AdapterRecord) for name in ADAPTERS}
"""Inputs of assets that read every adapter, in display order."""
ON_POLICY_PAIRS_INS = {round_.pairs: dg.AssetIn(dagster_type=pl.LazyFrame) for round_ in ON_POLICY}
"""Inputs with the pairs that adapters of on-policy rounds were trained on."""


def scoring_services(
    context: dg.AssetExecutionContext,
    inference: Inference,
    home: SynthHome,
    base: ModelRecord,
    budget: WorkBudget | None = None,
) -> ScoringServices:
    """Return the services of a step that scores models; by default its budget is what its run's limits leave."""
    return ScoringServices(
        load=partial(load_evaluated_model, inference, home, base),
        folder=home.shards("evaluation"),
        progress=context.log.info,
        budget=budget or step_meter(context, inference.hardware.row()).budget,
        gpu_slot=partial(gpu_slot, context),
    )


def load_evaluated_model(
    inference: Inference, home: SynthHome, base: ModelRecord, adapter: AdapterRecord | None
) -> EvaluatedModel:
    """Return the base model, or the base with an adapter after verifying the adapter's manifest.

    Raises:
        ManifestError: the adapter's files are missing or changed.
    """
    if adapter is None:
        tier, engine = inference.hardware.limits(), inference.engine()
        harness = [tier.dtype, tier.quantisation, tier.attention, tier.device]
        return EvaluatedModel(
            name=BASE,
            fingerprint=base.revision,
            weights=fingerprint(base.revision, engine, harness),
            engine=engine,
            generator=lambda: inference.generator(base),
            pair=lambda: inference.load_base(base),
        )
    return with_adapter(inference, base, home.root() / adapter.path, (adapter.name, adapter.fingerprint))


def with_adapter(inference: Inference, base: ModelRecord, folder: Path, identity: tuple[str, str]) -> EvaluatedModel:
    """Return the base with the adapter in a folder, after verifying the adapter's manifest.

    `identity` is the name and the fingerprint of the evaluated model.
    """
    tier = inference.hardware.limits()
    read_manifest(folder)
    engine = inference.engine(folder)
    harness = [tier.dtype, tier.quantisation, tier.attention, tier.device]
    name, adapter_fingerprint = identity
    return EvaluatedModel(
        name=name,
        fingerprint=adapter_fingerprint,
        weights=fingerprint(base.revision, folder_hash(folder), engine, harness),
        engine=engine,
        generator=lambda: inference.generator(base, folder),
        pair=lambda: inference.load_adapted(base, folder),
    )
