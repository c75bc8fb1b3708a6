"""`synth ask`: ask every model one question with the same seed."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from resources.gpu_slots import command_gpu_slot
from resources.inference import Inference
from synth_assets.cli.recall import version_taint
from synth_assets.cli.session import Session
from synth_assets.llm.protocols import Sampling
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import adapter_record, ensure_adapter
from synth_assets.schemas.records import BASE, AdapterRecord, ModelRecord
from synth_assets.stages.promotion.service_history import serving_version
from synth_assets.storage.lineage import LineageError
from synth_assets.training.methods import ADAPTERS, CONTROLS

ASKED_ADAPTERS = tuple(name for name in ADAPTERS if name not in CONTROLS)
MAX_TOKENS = 256
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AskedModel:
    """A model to ask.

    Attributes:
        title: the name to show.
        adapter: None for the base model.
        problem: the reason why it cannot be asked; empty if it can.
        serves: whether it is the champion.
    """

    title: str
    adapter: AdapterRecord | None
    problem: str = ""
    serves: bool = False

    @property
    def name(self) -> str:
        """Return the name of the adapter, or that of the base model."""
        return self.adapter.name if self.adapter else BASE


def answers(session: Session, question: str, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (title, answer) for the base model, each trained adapter and the champion.

    Raises:
        ValueError: the question is empty, or no model has been materialised.
    """
    if not question.strip():
        raise ValueError("the question is empty")
    base = base_in_use(session)
    inference = Inference(hardware=session.hardware)
    sampling = Sampling(temperature=0.7, top_p=1.0, max_tokens=MAX_TOKENS)
    session.limit_model_steps()
    for model in models_to_ask(session, base):
        if model.problem:
            yield model.title, model.problem
            continue
        generator = inference.generator(base, session.home / model.adapter.path if model.adapter else None)
        with command_gpu_slot(session.instance, "synth ask", log.warning):
            prompt = generator.encode_chat([{"role": "user", "content": question}])
            completion = generator.generate([prompt], [seed], sampling)[0]
        yield model.title, completion.text


def base_in_use(session: Session) -> ModelRecord:
    """Return the base model of this deployment. Raise ValueError if none has been materialised."""
    base = session.record("base_model", ModelRecord)
    if base is None:
        raise ValueError("no model has been materialised; run `synth run` first")
    return base


def restored_adapter(session: Session, tracker: MlflowTracker, base: ModelRecord, version: str) -> AdapterRecord:
    """Return the adapter of a version; restore its files from the registry if they are missing here.

    Raises:
        LineageError: the version was trained on another base model, or the registry has lost its files.
    """
    record = adapter_record(tracker, version)
    if record.base_revision != base.revision:
        raise LineageError(f"it was trained on {record.base} {record.base_revision}")
    ensure_adapter(tracker, version, session.home / record.path)
    return record


def models_to_ask(session: Session, base: ModelRecord) -> list[AskedModel]:
    """Return the base model, the current adapters, and the champion if it is none of these."""
    tracker = session.tracker
    serving = serving_version(tracker) if tracker else ""
    champion = tracker.version_tags(serving).get("fingerprint", "") if tracker and serving else ""
    models = [AskedModel(BASE if serving else f"{BASE} (serves)", None, serves=not serving)]
    for record in (session.record(name, AdapterRecord) for name in ASKED_ADAPTERS):
        if record is not None and not record.failure:
            serves = bool(champion) and record.fingerprint == champion
            version = serving if serves else record.model_version
            models.append(AskedModel(_title(session, record.name, version, serves=serves), record, serves=serves))
    fingerprints = {model.adapter.fingerprint for model in models if model.adapter}
    if tracker and serving and champion not in fingerprints:
        models.append(_champion(session, tracker, base, serving))
    return models


def _champion(session: Session, tracker: MlflowTracker, base: ModelRecord, version: str) -> AskedModel:
    """Return the version that serves; restore its files from the registry if they are missing here."""
    asset = tracker.version_tags(version).get("asset", "")
    title = _title(session, f"{asset or 'unknown'} version {version}", version, serves=True)
    if not asset:
        return AskedModel(title, None, "cannot be asked: no adapter asset registered it", serves=True)
    try:
        record = restored_adapter(session, tracker, base, version)
    except LineageError as error:
        return AskedModel(title, None, f"cannot be asked: {error}", serves=True)
    return AskedModel(title, record, serves=True)


def _title(session: Session, name: str, version: str, *, serves: bool) -> str:
    """Return the name of a model, marked if it is the champion or was trained on recalled rows."""
    tracker = session.tracker
    tainted = tracker is not None and version in tracker.versions() and version_taint(session, tracker, version) != ""
    marks = [mark for mark, holds in (("champion", serves), ("tainted", tainted)) if holds]
    return f"{name} ({', '.join(marks)})" if marks else name
