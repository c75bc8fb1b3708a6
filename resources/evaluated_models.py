"""Build the models to evaluate, the base model or the base with an adapter, and the services to score them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Optional

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
from synth_assets.training.methods import ADAPTERS, OPTIONAL_ADAPTERS

ADAPTER_INS = {
    name: dg.AssetIn(dagster_type=Optional[AdapterRecord] if name in OPTIONAL_ADAPTERS else AdapterRecord)  # noqa: UP045  # pyright: ignore[reportArgumentType]
    for name in ADAPTERS
}
"""Inputs of assets that read every adapter, in display order; None for one that was never trained and need not be."""
ON_POLICY_PAIRS_INS = {round_.pairs: dg.AssetIn(dagster_type=pl.LazyFrame) for round_ in ON_POLICY}
"""Inputs with the pairs that adapters of on-policy rounds were trained on."""


def evaluated_adapters(upstream: Mapping[str, Any], report: Callable[[str], object]) -> list[AdapterRecord]:
    """Return the adapters that are evaluated, in display order: those of the pipeline, and current optional ones.

    An optional adapter is current if every input that it shares with an adapter of the pipeline has the same data
    version, so that all models of a comparison saw the same base and rows. `report` takes a line about one that is not.
    """
    required = [upstream[name] for name in ADAPTER_INS if name not in OPTIONAL_ADAPTERS]
    versions = {asset: version for record in required for asset, version in record.data_versions.items()}
    records = []
    for name in ADAPTER_INS:
        record = upstream[name]
        if record is None:
            continue
        changed = [a for a, version in record.data_versions.items() if versions.get(a, version) != version]
        if name in OPTIONAL_ADAPTERS and changed:
            inputs = ", ".join(sorted(changed))
            report(f"{name} is not evaluated: it was trained on other versions of {inputs}. Materialise it again")
            continue
        records.append(record)
    return records


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
