"""Lineage and check verdicts, read from the event log of real runs."""

import time
from collections.abc import Iterator

import dagster as dg
import pytest

from resources import check_results
from resources.check_results import CheckResults, adapter_versions, check_verdicts, upstream_versions
from synth_assets.schemas.records import CheckResult

BATCHES = dg.DynamicPartitionsDefinition(name="batches")


class World(dg.ConfigurableResource):
    """What the data is and whether it is good, changed between runs."""

    raw: str = "r1"
    sft: str = "s1"
    good: bool = True
    sound: bool = True


class Seen:
    """What the adapter found upstream, by run."""

    versions: dict[str, str]


@dg.asset(partitions_def=BATCHES)
def raw(context: dg.AssetExecutionContext, world: World) -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion(f"{world.raw}-{context.partition_key}"))


@dg.asset_check(asset=raw)
def raw_is_good(world: World) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=world.good)


@dg.asset(deps=[raw], check_specs=[dg.AssetCheckSpec("own", asset="sft")])
def sft(world: World) -> dg.MaterializeResult:
    own = dg.AssetCheckResult(check_name="own", passed=world.sound, severity=dg.AssetCheckSeverity.WARN)
    return dg.MaterializeResult(data_version=dg.DataVersion(world.sft), check_results=[own])


@dg.asset_check(asset=sft)
def sft_is_good(world: World) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=world.good, description="looked at it")


@dg.asset_check(asset=sft)
def never_run() -> dg.AssetCheckResult:
    raise AssertionError("it is never selected")


@dg.asset
def base() -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion("b1"))


@dg.asset(deps=[sft, base])
def adapter(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    Seen.versions = upstream_versions(context)
    return dg.MaterializeResult(data_version=dg.DataVersion("a-" + Seen.versions["sft"]))


ASSETS = [raw, sft, base, adapter]
CHECKS = [raw_is_good, sft_is_good, never_run]
EVIDENCE = CheckResults.of([*ASSETS, *CHECKS])
EVERYTHING = dg.AssetSelection.all() - dg.AssetSelection.checks(never_run)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("batches", ["A", "B"])
        yield instance


def run(instance: dg.DagsterInstance, batch: str, world: World) -> None:
    alone(instance, EVERYTHING, world, batch)


def alone(instance: dg.DagsterInstance, selection: dg.AssetSelection, world: World, batch: str | None = None) -> None:
    job = dg.define_asset_job("selected", selection)
    definitions = dg.Definitions(ASSETS, asset_checks=CHECKS, jobs=[job], resources={"world": world})
    assert definitions.resolve_job_def("selected").execute_in_process(instance=instance, partition_key=batch).success


def statuses(instance: dg.DagsterInstance, versions: dict[str, str]) -> dict[tuple[str, str], str]:
    return {(v.asset, v.check): v.status for v in check_verdicts(instance, versions, EVIDENCE.checks)}


def test_all_checks_of_a_code_location_are_known() -> None:
    assert EVIDENCE.checks == {"raw": ["raw_is_good"], "sft": ["never_run", "own", "sft_is_good"]}


def test_versions_of_every_batch_are_upstream(instance: dg.DagsterInstance) -> None:
    run(instance, "A", World())
    assert Seen.versions == {"base": "b1", "sft": "s1", "raw[A]": "r1-A"}
    run(instance, "B", World(sft="s2"))
    assert Seen.versions == {"base": "b1", "sft": "s2", "raw[A]": "r1-A", "raw[B]": "r1-B"}


def test_input_versions_are_those_that_were_read(instance: dg.DagsterInstance) -> None:
    run(instance, "A", World())
    alone(instance, dg.AssetSelection.assets(raw), World(raw="r2"), "A")
    alone(instance, dg.AssetSelection.assets(adapter), World())
    assert Seen.versions["raw[A]"] == "r1-A", "the dataset was made before the batch changed"
    assert adapter_versions(instance, "adapter", "a-s1") == {"adapter": "a-s1", **Seen.versions}
    assert adapter_versions(instance, "adapter", "other") == {}


def test_check_results_are_of_the_requested_data_version(instance: dg.DagsterInstance) -> None:
    run(instance, "A", World(good=False))
    first = Seen.versions
    run(instance, "B", World(sft="s2"))
    assert statuses(instance, first) == {
        ("raw[A]", "raw_is_good"): "failed",
        ("sft", "never_run"): "missing",
        ("sft", "own"): "passed",
        ("sft", "sft_is_good"): "failed",
    }
    second = statuses(instance, Seen.versions)
    assert second["sft", "sft_is_good"] == second["raw[B]", "raw_is_good"] == "passed"
    assert second["raw[A]", "raw_is_good"] == "failed"


def test_newest_evaluation_of_the_same_data_counts(instance: dg.DagsterInstance) -> None:
    run(instance, "A", World(good=False))
    versions = Seen.versions
    alone(instance, dg.AssetSelection.checks(sft_is_good), World())
    assert statuses(instance, versions)["sft", "sft_is_good"] == "passed"
    alone(instance, dg.AssetSelection.checks(sft_is_good), World(good=False))
    assert statuses(instance, versions)["sft", "sft_is_good"] == "failed"
    alone(instance, dg.AssetSelection.assets(sft) - dg.AssetSelection.checks(sft_is_good, never_run), World(sft="s9"))
    alone(instance, dg.AssetSelection.checks(sft_is_good), World())
    assert statuses(instance, versions)["sft", "sft_is_good"] == "failed"
    assert statuses(instance, {"sft@s9": "s9"})["sft@s9", "sft_is_good"] == "passed"


def test_warning_has_status_warned(instance: dg.DagsterInstance) -> None:
    run(instance, "A", World(sound=False))
    assert statuses(instance, Seen.versions)["sft", "own"] == "warned"


def test_a_planned_check_is_waited_for_and_then_missing(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_results, "WAIT_S", 0.7)
    seen: list[CheckResult] = []
    waited: list[float] = []

    @dg.asset(deps=[sft])
    def judge(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        started = time.monotonic()
        seen.extend(CheckResults(checks={"sft": ["late"]}).verdicts(context, upstream_versions(context)))
        waited.append(time.monotonic() - started)
        return dg.MaterializeResult(data_version=dg.DataVersion("j"))

    @dg.asset_check(asset=sft, additional_deps=[judge])
    def late() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    definitions = dg.Definitions(
        [sft, judge], asset_checks=[late], jobs=[dg.define_asset_job("job")], resources={"world": World()}
    )
    job = definitions.resolve_job_def("job")
    assert job.execute_in_process(instance=instance).success
    assert [verdict.status for verdict in seen] == ["missing"]
    assert waited[0] >= 0.7
    assert [v.status for v in check_verdicts(instance, {"sft": "s1"}, {"sft": ["late"]})] == ["passed"]
