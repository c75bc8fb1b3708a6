"""Factories of records."""

from typing import Any

from synth_assets.schemas.records import AdapterRecord

ADAPTER: dict[str, Any] = {
    "name": "lora_adapter",
    "method": "lora",
    "role": "candidate",
    "fingerprint": "",
    "path": "",
    "manifest_sha256": "",
    "model_version": "",
    "mlflow_run_id": "",
    "base": "base",
    "base_revision": "r",
    "spec": {},
    "data_versions": {},
    "trainable_parameters": 1,
    "total_parameters": 2,
    "peak_memory_bytes": 1,
    "peak_memory_kind": "derived",
    "tokens_per_s": 1.0,
    "seconds": 1.0,
    "cost_usd": 0.0,
    "final_loss": 1.0,
}


def make_adapter(**values: Any) -> AdapterRecord:  # noqa: ANN401
    """Return the record of a LoRA adapter, with other values where they are given."""
    return AdapterRecord(**{**ADAPTER, **values})


def make_lora(key: str = "f1", **values: Any) -> AdapterRecord:  # noqa: ANN401
    """Return the record of an adapter of rank 2 in `adapters/<key>`, with other values where they are given."""
    identity = {"fingerprint": key, "path": f"adapters/{key}", "manifest_sha256": "m"}
    return make_adapter(**{**identity, "spec": {"rank": 2}, "data_versions": {"sft_dataset": "v"}, **values})
