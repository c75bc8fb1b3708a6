"""Versions of the training methods, which stand for their code in the fingerprint of an adapter.

Raise a version when its code gives other weights (or log-probabilities) for the same spec, rows, base and seed:
adapters of that method are then trained again, and no others. `tests/training/test_versions.py` reminds of it.
"""

from collections.abc import Mapping

from synth_assets.schemas.serialization import fingerprint

REFERENCE = "reference_logprobs"
VERSIONS: Mapping[str, int] = {
    "lora": 1,
    "prompt_tuning": 1,
    "dpo": 1,
    "on_policy_dpo": 1,
    "rejection_sampling": 1,
    REFERENCE: 1,
}


def code_version(method: str) -> str:
    """Return the version of a method as Dagster keeps it for an asset."""
    return fingerprint(method, VERSIONS[method])
