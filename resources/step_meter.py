"""What a step takes, and what it may take: seconds, tokens, price, and the limits of the step and of its run."""

import time
from dataclasses import dataclass

import dagster as dg
from pydantic import Field

from synth_assets.llm.costs import cost_usd
from synth_assets.schemas.tier import Tier
from synth_assets.storage.budgets import Limit, WorkBudget, run_limits, step_limits

MAX_MINUTES, MAX_COST = "synth/max_minutes", "synth/max_cost"
"""Tags of a run that limit its wall time and its price in US dollars; options of `synth run` set them."""


class BudgetConfig(dg.Config):
    """Limits of one step."""

    max_minutes: float | None = Field(None, description="Most wall time in minutes; finished blocks are kept.")
    max_cost: float | None = Field(None, description="Most US dollars at the tier's price; finished blocks are kept.")


@dataclass(frozen=True)
class StepMeter:
    """Counts from the start of a step; make it with `step_meter`."""

    budget: WorkBudget
    usd_per_hour: float

    def facts(self) -> dict[str, float]:
        """Return the step's metadata: its seconds so far, and their price."""
        seconds = self.budget.spent_s()
        return {"seconds": seconds, "cost_usd": cost_usd(seconds, self.usd_per_hour)}

    def writing_facts(self, new_tokens: int, writing_s: float) -> dict[str, float]:
        """Return the metadata of a step in which models wrote text: also its new tokens and their rate.

        Args:
            new_tokens: written now; what was read from shards is not among them.
            writing_s: seconds in which models generated, without loading and the rest of the step.
        """
        rate = {"tokens_per_s": new_tokens / writing_s} if new_tokens and writing_s else {}
        return {"new_tokens": new_tokens, **rate, **self.facts()}


def step_meter(context: dg.AssetExecutionContext, tier: Tier, config: BudgetConfig | None = None) -> StepMeter:
    """Start to count what a step takes; its budget holds the limits of its configuration and what its run has left.

    Raises:
        ValueError: a limit is not a number above 0.
    """
    step = context.asset_key.to_user_string() if len(context.selected_asset_keys) == 1 else context.op.name
    own = step_limits(config.max_minutes, config.max_cost, tier.usd_per_hour, step) if config else []
    return StepMeter(WorkBudget([*own, *_run_limits(context, tier)]), tier.usd_per_hour)


def _run_limits(context: dg.AssetExecutionContext, tier: Tier) -> list[Limit]:
    minutes, cost = (_number(context, tag) for tag in (MAX_MINUTES, MAX_COST))
    if minutes is None and cost is None:
        return []
    record = context.instance.get_run_record_by_id(context.run.run_id)
    spent = max(0.0, time.time() - record.start_time) if record and record.start_time else 0.0
    return run_limits(minutes, cost, tier.usd_per_hour, spent)


def _number(context: dg.AssetExecutionContext, tag: str) -> float | None:
    text = context.run.tags.get(tag)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise ValueError(f"the run's tag {tag} must be a number, got {text!r}") from error
