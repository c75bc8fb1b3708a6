"""What is written into MLflow about an adapter and a score: tags, numbers, and the filter that finds them again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from synth_assets.schemas.records import AdapterRecord, Metric
from synth_assets.storage.manifests import file_sha256, folder_hash


def adapter_tags(record: AdapterRecord, folder: Path) -> dict[str, str]:
    """What a version of the registered model is found by; ValueError where the folder holds no safetensors."""
    weights = sorted(folder.rglob("*.safetensors"))
    if not weights:
        raise ValueError(f"{folder} holds no safetensors: {record.name} is not a complete adapter")
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
    """The numbers of a whole training, and what this process and machine use while they are logged."""
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
    """The tag of a version that holds one of its scores."""
    return f"score.{metric.suite}.{metric.split}.{metric.metric}"


def score_text(metric: Metric, run_id: str) -> str:
    """A score as the text of a tag: the number, its n and interval, and where its items lie."""
    kept = ("value", "n", "unanswerable", "ci_low", "ci_high", "interval", "data_hash", "items_sha256")
    facts = {name: value for name, value in asdict(metric).items() if name in kept}
    return json.dumps({**facts, "run_id": run_id}, sort_keys=True)


def tag_filter(tags: Mapping[str, str]) -> str:
    """MLflow's filter for all tags at once; the values are hashes of our own making."""
    return " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
