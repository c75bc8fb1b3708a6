"""Build the models that an evaluation scores: the base model, or the base with an adapter."""

from pathlib import Path

from resources.inference import Inference
from resources.storage import SynthHome
from synth_assets.evals.scoring import EvaluatedModel
from synth_assets.schemas.records import BASE, AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.storage.manifests import folder_hash, read_manifest


def load_evaluated_model(
    inference: Inference, home: SynthHome, base: ModelRecord, adapter: AdapterRecord | None
) -> EvaluatedModel:
    """The base model, or it with an adapter whose files are compared with their manifest first.

    Raises:
        ManifestError: the adapter's files are not there, or not what they were.
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


def with_adapter(inference: Inference, base: ModelRecord, folder: Path, known_as: tuple[str, str]) -> EvaluatedModel:
    """The base with the adapter in a folder, whose files are compared with their manifest first.

    `known_as` are the subject's name and fingerprint.
    """
    tier = inference.hardware.limits()
    read_manifest(folder)
    engine = inference.engine(folder)
    harness = [tier.dtype, tier.quantisation, tier.attention, tier.device]
    name, made_by = known_as
    return EvaluatedModel(
        name=name,
        fingerprint=made_by,
        weights=fingerprint(base.revision, folder_hash(folder), engine, harness),
        engine=engine,
        generator=lambda: inference.generator(base, folder),
        pair=lambda: inference.load_adapted(base, folder),
    )
