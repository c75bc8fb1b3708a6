"""Metadata of the materialisations of the stage reward_training."""

from typing import Any

import dagster as dg

from synth_assets.stages.reward_training.accuracy import TrainedReward, numbers_of
from synth_assets.training.adapter_store import StoredAdapter

MAX_SHOWN_EVENTS = 20


def reward_metadata(record: TrainedReward, stored: StoredAdapter, run_url: str) -> dict[str, Any]:
    """Return the metadata of a trained reward model: its accuracies, how to use it, its training and its run."""
    outcome, current = stored.outcome, record.current
    return {
        "held_out": record.held_out.text(),
        "longer_is_better": record.longer.text(),
        **({"reward_model_in_use": f"{record.current_model}: {current.text()}"} if current else {}),
        "use": f"export SYNTH_REWARD={record.location}",
        **numbers_of(record),
        "difference_from_longer_p_value": record.against_longer.p_value,
        "final_loss": outcome.final_loss,
        "seconds": outcome.seconds,
        "tokens_per_s": outcome.tokens_per_s,
        "tokens": outcome.tokens,
        "steps": outcome.steps,
        "trained_before": stored.reused,
        "spec": dg.MetadataValue.json(dict(record.spec)),
        "events": dg.MetadataValue.json(outcome.events[-MAX_SHOWN_EVENTS:]),
        "mlflow_run": dg.MetadataValue.url(run_url),
    }
