"""Detect that nothing has changed since the last complete run, so that `synth run` can stop early."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import checks
import resources
import synth_assets
from resources.deployment import DEPLOYMENT_VARIABLES
from resources.inference import Inference
from synth_assets.cli.run import Launch, batch_name
from synth_assets.cli.session import Session
from synth_assets.schemas.serialization import fingerprint
from synth_assets.storage.atomic import write_text
from synth_assets.training.adapter_store import library_versions

RECORD = Path("last_run.json")  # in SYNTH_HOME
IGNORED = ("dagster", "index.html", "locks", "logs", "ui.json", RECORD.name)  # in SYNTH_HOME; no step reads them


def unchanged_since_last_run(session: Session, launch: Launch) -> str:
    """Return the id of the last complete run if all inputs of a run are unchanged since; empty otherwise.

    The inputs are code, libraries, settings, environment, models, the files of SYNTH_HOME and the newest Dagster run.
    With an MLflow server the result is always empty, because changes on the server are not visible here.
    """
    path = session.home / RECORD
    if session.tracking.tracking_uri or not path.is_file():
        return ""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError):
        return ""
    return str(record["run_id"]) if record == _state(session, launch) else ""


def remember_run(session: Session, launch: Launch) -> None:
    """Store the inputs of a complete run for `unchanged_since_last_run`."""
    write_text(session.home / RECORD, json.dumps(_state(session, launch), indent=1))


def _state(session: Session, launch: Launch) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name.startswith(DEPLOYMENT_VARIABLES)}
    inference = Inference(hardware=session.hardware)
    newest = session.instance.get_runs(limit=1)
    benchmarks = os.environ.get("SYNTH_BENCHMARKS", "")
    unlimited = replace(launch, max_minutes=None, max_cost=None)
    return {
        "run_id": newest[0].run_id if newest else "",
        "launch": fingerprint(asdict(unlimited), batch_name(session, launch.batch), session.tier_name),
        "environment": fingerprint(environment),
        "code": _code_hash(),
        "libraries": fingerprint(library_versions(), platform.python_version()),
        "models": fingerprint([asdict(inference.resolve(role)) for role in ("teacher", "base", "reward")]),
        "home": fingerprint([list(entry) for entry in _files(session.home, IGNORED)]),
        "benchmarks": fingerprint([list(entry) for entry in _files(Path(benchmarks))] if benchmarks else []),
    }


def _code_hash() -> str:
    digest = hashlib.sha256()
    for package in (synth_assets, resources, checks):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _files(folder: Path, ignored: tuple[str, ...] = ()) -> Iterator[tuple[str, int, int]]:
    """Yield relative path, size in bytes and modification time in ns of the files below a folder, sorted."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] not in ignored and path.is_file():
            stat = path.stat()
            yield name.as_posix(), stat.st_size, stat.st_mtime_ns
