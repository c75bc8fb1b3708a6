"""The options of `synth run`: what is selected, the command that continues, and the run as the UI lists it."""

import dagster as dg
import pytest

from synth_assets.cli.execution import LOCATION, NOT_RETRIED, JobRun, execute
from synth_assets.cli.run import Launch, named_adapters, resume_command, selection_text
from synth_assets.cli.session import open_session
from synth_assets.cli.terminal import RedactingConsole


def test_the_plan_names_the_batch_and_the_assets() -> None:
    session = open_session("cpu")
    whole = selection_text(session, Launch(batch="second"))
    assert whole.startswith("run      batch second (new), all ")
    part = selection_text(session, Launch(select="key:sft_dataset"))
    assert part.startswith("run      batch first (new), 1 of ")
    assert part.endswith(" assets: sft_dataset")


@pytest.mark.filterwarnings("ignore:Parameter `include_sources`")  # dagster: the parser of group:
def test_an_adapter_outside_the_pipeline_is_selected_by_its_name_alone() -> None:
    session = open_session("cpu")
    named = selection_text(session, Launch(select="key:kto_adapter or key:lora_adapter"))
    assert named.endswith("2 of 35 assets: kto_adapter, lora_adapter")
    group = selection_text(session, Launch(select="group:adapters"))
    assert " of 32 assets: " in group
    assert not named_adapters(group)
    upstream = selection_text(session, Launch(select="+key:benchmark_scores or key:orpo_adapter"))
    assert named_adapters(upstream) == {"orpo_adapter"}


def test_a_selection_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="matched none"):
        selection_text(open_session("cpu"), Launch(select="key:no_such_asset"))


def test_the_command_that_continues_has_the_same_options() -> None:
    launch = Launch(samples=20, select="key:a+", settings=("a.b=1", "c.d=[x, y]"))
    assert resume_command(launch, "second") == [
        *("synth", "run", "--batch", "second", "--samples", "20", "--select", "key:a+"),
        *("--set", "a.b=1", "--set", "c.d=[x, y]"),
    ]


def test_the_command_that_continues_names_tier_and_process() -> None:
    launch = Launch(batch="week", in_process=True, tier="laptop", max_minutes=5.0)
    assert resume_command(launch, "week") == ["synth", "run", "--batch", "week", "--tier", "laptop", "--in-process"]


@dg.asset
def number() -> int:
    return 1


@dg.definitions
def small() -> dg.Definitions:
    job = dg.define_asset_job("small", tags={"trigger": "ui", "kind": "small"})
    return dg.Definitions(assets=[number], jobs=[job], executor=dg.in_process_executor)


def small_job() -> dg.JobDefinition:
    return small().resolve_job_def("small")


def test_a_run_belongs_to_the_job_of_the_code_location_and_is_not_retried() -> None:
    session = open_session("cpu")
    assert execute(session, JobRun(small_job, {}, {"trigger": "synth run"}), RedactingConsole(quiet=True))
    (run,) = session.instance.get_runs()
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == LOCATION.name
    label = f"{LOCATION.repository}@{LOCATION.name}"
    assert {"kind": "small", "trigger": "synth run", **NOT_RETRIED}.items() <= run.tags.items()
    assert [r.run_id for r in session.instance.get_runs(dg.RunsFilter(tags={".dagster/repository": label}))] == [
        run.run_id
    ]
