"""`synth export`: write a model version to a folder in a format that other programs serve."""

from pathlib import Path

from resources.inference import Inference
from synth_assets.cli.session import Session
from synth_assets.cli.trace import version_of
from synth_assets.registry.model_versions import adapter_record, ensure_adapter
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.export.merge import ExportError, check_mergeable
from synth_assets.stages.export.write import ExportSource, check_replaceable, export_model


def export_version(session: Session, name: str, kind: str, folder: Path, dtype: str) -> str:
    """Export a version to a folder and return what was measured.

    Raises:
        LineageError: there is no such version, or its files are lost.
        ExportError: the version cannot be exported, or the folder holds foreign files.
    """
    folder = folder.expanduser().absolute()
    check_replaceable(folder)
    number = version_of(session, name)
    base = session.record("base_model", ModelRecord)
    if base is None or session.tracker is None:
        raise ExportError("no base model has been materialised; run `synth run` first")
    record = adapter_record(session.tracker, number)
    if record.base_revision != base.revision:
        raise ExportError(
            f"version {number} was trained on {record.base} {record.base_revision}, the base model is now "
            f"{base.name} {base.revision}: configure its base model, or export another version"
        )
    adapter = session.home / record.path
    ensure_adapter(session.tracker, number, adapter)
    check_mergeable(adapter)
    facts = {"version": number, "adapter": record.fingerprint, "base": base.name, "base_revision": base.revision}
    source = ExportSource(Inference(hardware=session.hardware).folder(base), adapter, facts)
    return export_model(source, kind, folder, dtype)
