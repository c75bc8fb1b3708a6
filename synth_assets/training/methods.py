"""The training methods."""

from synth_assets.schemas.preference_rounds import ROUNDS

ADAPTERS = (
    "prompt_tuning_adapter",
    "lora_adapter",
    "rejection_sampling_adapter",
    *(name for one in ROUNDS for name in (one.adapter, one.control)),
)
"""The assets that are examined beside the base model, in the order they are shown."""

CONTROLS = tuple(one.control for one in ROUNDS)  # scored, never candidates
