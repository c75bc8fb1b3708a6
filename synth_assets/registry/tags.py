"""Tags and metrics of adapters and scores in MLflow, and the search filter for tags."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from synth_assets.schemas.records import AdapterRecord, Metric
from synth_assets.storage.manifests import file_sha256, folder_hash

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL_ID = re.compile(r"/models/(m-[0-9a-f]{32})(?:/|$)")  # in the artifact address of a logged model


def adapter_tags(record: AdapterRecord, folder: Path) -> dict[str, str]:
    """Return the tags that identify an adapter's version. Raise ValueError if the folder has no safetensors file."""
    weights = sorted(folder.rglob("*.safetensors"))
    if not weights:
        raise ValueError(f"{folder} has no safetensors file: {record.name} is not a complete adapter")
    return {
        "fingerprint": record.fingerprint,
        "weights_sha256": hashlib.sha256("".join(file_sha256(path) for path in weights).encode()).hexdigest(),
        "asset": record.name,
        "method": record.method,
        "role": record.role,
        "base": record.base,
        "base_revision": record.base_revision,
        "data_version": folder_hash(folder),
    }


def totals(record: AdapterRecord) -> dict[str, float]:
    """Return the metrics of a whole training, and the current resource usage of this process and machine."""
    process = psutil.Process()
    with process.oneshot():
        used, cpu = process.memory_info().rss, process.cpu_times()
    numbers: dict[str, Any] = {
        "final_loss": record.final_loss,
        "seconds": record.seconds,
        "tokens_per_s": record.tokens_per_s,
        "cost_usd": record.cost_usd,
        "trainable_parameters": record.trainable_parameters,
        "total_parameters": record.total_parameters,
        f"peak_memory_bytes_{record.peak_memory_kind}": record.peak_memory_bytes,
        "system/process_memory_megabytes": used / 1e6,
        "system/process_cpu_seconds": cpu.user + cpu.system,
        "system/machine_memory_available_megabytes": psutil.virtual_memory().available / 1e6,
        "system/cores": psutil.cpu_count() or 0,
    }
    return {name: float(value) for name, value in numbers.items()}


def score_tag(metric: Metric) -> str:
    """Return the tag name of a score."""
    return f"score.{metric.suite}.{metric.split}.{metric.metric}"


def score_text(metric: Metric, run_id: str) -> str:
    """Return the tag value of a score: value, n, interval, hashes and run id, as JSON."""
    names = ("value", "n", "unanswerable", "ci_low", "ci_high", "interval", "data_hash", "items_sha256")
    fields = {name: value for name, value in asdict(metric).items() if name in names}
    return json.dumps({**fields, "run_id": run_id}, sort_keys=True)


def model_id_of(version: "ModelVersion") -> str | None:
    """Return the id of a version's logged model; None if it was registered from another place."""
    found = MODEL_ID.search(str(version.source or ""))
    return version.tags.get("model_id") or version.model_id or (found.group(1) if found else None)


def tag_filter(tags: Mapping[str, str]) -> str:
    """Return MLflow's search filter for all of the tags; the values are hashes and need no escaping."""
    return " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
