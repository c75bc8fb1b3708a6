"""`synth status`: the order of the parts, completed checks while a run is going, and the run in progress."""

import dagster as dg

from synth_assets.cli.session import open_session
from synth_assets.cli.status import last_evaluations, status_text
from synth_assets.definitions import STAGE_NAMES


@dg.asset
def rows() -> int:
    return 1


@dg.asset_check(asset=rows)
def enough_rows() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, description="1 row, at least 1 required")


KEY = dg.AssetCheckKey(dg.AssetKey("rows"), "enough_rows")


def test_a_planned_check_shows_its_last_completed_evaluation(instance: dg.DagsterInstance) -> None:
    dg.materialize([rows, enough_rows], instance=instance)
    job = dg.Definitions(assets=[rows], asset_checks=[enough_rows], jobs=[dg.define_asset_job("all")])
    instance.create_run_for_job(job.resolve_job_def("all"))  # plans the check and evaluates nothing
    evaluation = last_evaluations(instance, [KEY])[KEY]
    assert evaluation.description == "1 row, at least 1 required"


def test_a_check_that_never_ran_is_left_out(instance: dg.DagsterInstance) -> None:
    assert last_evaluations(instance, [KEY]) == {}


def test_the_champion_comes_first_and_the_stages_in_order() -> None:
    session = open_session("cpu")
    job = dg.Definitions(assets=[rows], jobs=[dg.define_asset_job("pipeline")]).resolve_job_def("pipeline")
    run = session.instance.create_run_for_job(job, tags={"batch": "week"}, status=dg.DagsterRunStatus.STARTED.value)
    lines = status_text(session).splitlines()
    assert lines[0] == "champion  the base model: no version was promoted yet"
    assert [line for line in lines if line in STAGE_NAMES] == list(STAGE_NAMES)
    running = next(line for line in lines if line.startswith("running"))
    assert f"run {run.run_id[:8]} (pipeline, batch week): starting" in running
    assert "checks    0 passed, 0 failed" in lines
    assert all(len(line) <= 80 or "/" in line for line in lines)
