"""What a step and its run may take: finished work is kept, and the message says how to go on."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.hardware import TIERS
from resources.step_meter import MAX_COST, MAX_MINUTES, StepMeter, step_meter
from synth_assets.cli.costs import limits_text, run_costs_text
from synth_assets.cli.run import Launch, limit_tags
from synth_assets.storage.blocks import Block, compute_blocks
from synth_assets.storage.budgets import BudgetError, Limit, WorkBudget, run_limits, step_limits
from synth_assets.training.budget import Budget, OverBudgetError, tighter
from tests.support.fakes import Clock


def test_limits_are_minutes_and_the_price_of_the_tier() -> None:
    minutes, cost = step_limits(2, 0.5, 3.0, "benchmark_scores")
    assert (minutes.seconds, cost.seconds) == (120.0, 600.0)
    assert minutes.source == "max_minutes 2 of benchmark_scores"
    assert cost.source == "max_cost 0.5 USD of benchmark_scores at 3 USD an hour"
    assert step_limits(None, 5.0, 0.0, "benchmark_scores") == [], "what costs nothing has no limit of cost"
    (left,) = run_limits(10, None, 0.0, 480.0)
    assert (left.seconds, left.remedy) == (120.0, "raise --max-minutes")
    assert WorkBudget([minutes, cost, left]).tightest() == minutes


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_limit_of_zero_raises(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"max_minutes must be above 0, got"):
        step_limits(wrong, None, 1.0, "raw_instructions")
    with pytest.raises(ValueError, match=r"max_cost must be above 0, got"):
        run_limits(None, wrong, 1.0, 0.0)


def test_check_raises_before_a_limit_with_the_remedy() -> None:
    clock = Clock()
    budget = WorkBudget([Limit(60, "max_minutes 1 of raw_instructions", "raise raw_instructions.max_minutes")], clock)
    clock.now += 50
    budget.check("640 of 1,536 rows are made", next_s=10.0)
    with pytest.raises(BudgetError) as stopped:
        budget.check("640 of 1,536 rows are made", next_s=10.1)
    assert str(stopped.value) == (
        "stopped after 50 s: max_minutes 1 of raw_instructions leaves 10 s and the next part takes about 10 s. "
        "640 of 1,536 rows are made. Finished work is kept; raise raw_instructions.max_minutes, "
        "and run again to continue"
    )
    clock.now += 10
    with pytest.raises(BudgetError, match="stopped after 60 s: max_minutes 1 of raw_instructions is used up"):
        budget.check("nothing is made")
    WorkBudget([], clock).check("all", next_s=1e9)


def test_rerun_after_a_budget_error_computes_the_rest(tmp_path: Path) -> None:
    clock, made = Clock(), []

    def compute(name: str) -> pl.DataFrame:
        made.append(name)
        clock.now += 40
        return pl.DataFrame({"name": [name]})

    def run(seconds: float) -> list[Path]:
        blocks = [Block(f"key{name}", 1, name) for name in "abcd"]
        budget = WorkBudget([Limit(seconds, "the run's max_minutes 1", "raise --max-minutes")], clock)
        return compute_blocks(blocks, compute, tmp_path, what="rows", progress=lambda _: None, budget=budget)

    with pytest.raises(BudgetError, match="2 of 4 rows are done"):
        run(60)
    assert made == ["a", "b"]
    assert len(run(100)) == 4
    assert made == ["a", "b", "c", "d"]
    assert len(run(0)) == 4, "what exists takes nothing"


@pytest.mark.parametrize(
    ("own", "left", "seconds", "of_run"),
    [
        (None, None, None, False),
        (60.0, None, 60.0, False),
        (60.0, 90.0, 60.0, False),
        (None, 90.0, 90.0, True),
        (60.0, 30.0, 30.0, True),
        (60.0, -5.0, -5.0, True),
    ],
)
def test_a_training_has_the_tighter_of_two_limits(
    own: float | None, left: float | None, seconds: float | None, of_run: bool
) -> None:
    limit = None if left is None else Limit(left, "the run's max_minutes 1", "raise --max-minutes")
    budget = tighter(Budget(own, "max_minutes 1"), limit)
    assert (budget.seconds, budget.of_run) == (seconds, of_run)


def test_training_does_not_start_without_budget() -> None:
    with pytest.raises(OverBudgetError, match="the run's max_minutes 1 is used up; training did not start"):
        Budget(-5.0, "the run's max_minutes 1").check_prediction(None)
    Budget(5.0, "max_minutes 1").check_prediction(None)


class StepConfig(dg.Config):
    max_minutes: float | None = None
    max_cost: float | None = None


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    ephemeral = dg.DagsterInstance.ephemeral()
    yield ephemeral
    ephemeral.dispose()


def metered(
    instance: dg.DagsterInstance, tags: dict[str, str], config: StepConfig | None = None
) -> tuple[StepMeter, str]:
    found: list[StepMeter] = []

    @dg.asset
    def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        meter = step_meter(context, TIERS["h100"], config)
        found.append(meter)
        return dg.MaterializeResult(metadata=meter.writing_facts(1_200, 2.0))

    result = dg.materialize([made], instance=instance, tags=tags)
    (event,) = result.asset_materializations_for_node("made")
    facts = {name: value.value for name, value in event.metadata.items()}
    assert facts["new_tokens"] == 1_200
    assert facts["tokens_per_s"] == 600.0
    assert facts["cost_usd"] == pytest.approx(facts["seconds"] / 3600 * 3.0)
    return found[0], result.run_id


def test_step_budget_combines_step_and_run_limits(instance: dg.DagsterInstance) -> None:
    meter, run_id = metered(instance, {MAX_MINUTES: "10", MAX_COST: "1.5"}, StepConfig(max_minutes=20))
    own, minutes, cost = meter.budget.limits
    assert own.seconds == 1_200
    assert 590 < minutes.seconds <= 600, "what the run spent before this step is gone"
    assert 1_790 < cost.seconds <= 1_800
    assert cost.source == "the run's max_cost 1.5 USD at 3 USD an hour"
    text = run_costs_text(instance, run_id, 3.0)
    assert text.startswith(
        "The run took 0.0 min, 0.00 USD at 3 USD an hour, 1,200 new tokens.\nLongest steps: made 0 s"
    )


def test_limit_that_is_not_a_number_raises(instance: dg.DagsterInstance) -> None:
    with pytest.raises(Exception, match="the run's tag synth/max_minutes must be a number, got 'ten'"):
        metered(instance, {MAX_MINUTES: "ten"})


def test_a_plan_says_whether_a_limit_is_expected_to_end_the_run() -> None:
    assert limits_text(6.7, None, None, 0.0) == ""
    shorter = "shorter than the expected duration; finished work is kept"
    assert limits_text(6.7, 5, None, 0.0) == f"limit    5.0 minutes (the run's max_minutes 5): {shorter}"
    cost = limits_text(6.7, 60, 0.3, 3.0)
    assert cost == f"limit    6.0 minutes (the run's max_cost 0.3 USD at 3 USD an hour): {shorter}"
    assert limits_text(None, 5, None, 0.0).endswith("(the run's max_minutes 5): finished work is kept")


def test_limits_of_a_run_are_its_tags() -> None:
    assert limit_tags(Launch(), TIERS["cpu"]) == {}
    assert limit_tags(Launch(max_minutes=90, max_cost=2.5), TIERS["h100"]) == {MAX_MINUTES: "90", MAX_COST: "2.5"}
    with pytest.raises(ValueError, match="got one at 0 USD an hour; use --max-minutes"):
        limit_tags(Launch(max_cost=1.0), TIERS["cpu"])
    with pytest.raises(ValueError, match="max_minutes must be above 0, got -1"):
        limit_tags(Launch(max_minutes=-1), TIERS["cpu"])
