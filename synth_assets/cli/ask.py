"""`synth ask`: one question to every model that exists, with the same seed."""

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

ASKED = tuple(name for name in ADAPTERS if name not in CONTROLS)
MAX_TOKENS = 256
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A model to ask: what it is called, and its adapter; None is the base. `problem`: why it cannot be asked."""

    title: str
    adapter: AdapterRecord | None
    problem: str = ""


def answers(session: Session, question: str, seed: int) -> Iterator[tuple[str, str]]:
    """(model, answer) for the base, each adapter that was trained, and the champion, whichever training made it.

    Raises:
        ValueError: the question is empty, or nothing was materialised yet.
    """
    if not question.strip():
        raise ValueError("the question is empty")
    base = session.record("base_model", ModelRecord)
    if base is None:
        raise ValueError("no model was materialised yet: synth run")
    inference = Inference(hardware=session.hardware)
    sampling = Sampling(temperature=0.7, top_p=1.0, max_tokens=MAX_TOKENS)
    session.limit_model_steps()
    for asked in models_to_ask(session, base):
        if asked.problem:
            yield asked.title, asked.problem
            continue
        generator = inference.generator(base, session.home / asked.adapter.path if asked.adapter else None)
        with command_gpu_slot(session.instance, "synth ask", log.warning):
            prompt = generator.encode_chat([{"role": "user", "content": question}])
            completion = generator.generate([prompt], [seed], sampling)[0]
        yield asked.title, completion.text


def models_to_ask(session: Session, base: ModelRecord) -> list[Asked]:
    """The base, the present adapters, and the version that `@champion` points to where it is none of these."""
    tracker = session.tracker
    serving = serving_version(tracker) if tracker else ""
    made_by = tracker.version_tags(serving).get("fingerprint", "") if tracker and serving else ""
    asked = [Asked(BASE if serving else f"{BASE} (serves)", None)]
    for record in (session.record(name, AdapterRecord) for name in ASKED):
        if record is not None and not record.failure:
            serves = bool(made_by) and record.fingerprint == made_by
            version = serving if serves else record.model_version
            asked.append(Asked(_title(session, record.name, version, serves=serves), record))
    known = {one.adapter.fingerprint for one in asked if one.adapter}
    if tracker and serving and made_by not in known:
        asked.append(_champion(session, tracker, base, serving))
    return asked


def _champion(session: Session, tracker: MlflowTracker, base: ModelRecord, version: str) -> Asked:
    """The version that serves, its files fetched from the registry where they are gone here."""
    asset = tracker.version_tags(version).get("asset", "")
    title = _title(session, f"{asset or 'unknown'} version {version}", version, serves=True)
    if not asset:
        return Asked(title, None, "cannot be asked: it was not registered by an adapter asset")
    try:
        record = adapter_record(tracker, version)
        if record.base_revision != base.revision:
            return Asked(title, None, f"cannot be asked: it was trained on {record.base} {record.base_revision}")
        ensure_adapter(tracker, version, session.home / record.path)
    except LineageError as error:
        return Asked(title, None, f"cannot be asked: {error}")
    return Asked(title, record)


def _title(session: Session, name: str, version: str, *, serves: bool) -> str:
    """A model's name with what a reader must know of it: that it serves, and that it holds recalled rows."""
    tracker = session.tracker
    tainted = tracker is not None and version in tracker.versions() and version_taint(session, tracker, version) != ""
    marks = [mark for mark, holds in (("champion", serves), ("tainted", tainted)) if holds]
    return f"{name} ({', '.join(marks)})" if marks else name
