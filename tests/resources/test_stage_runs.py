"""Generation, filtering, pairs and decisions have a run in MLflow each, from what Dagster recorded."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from resources.check_results import upstream_versions
from resources.stage_runs import log_or_warn, log_stages
from resources.tracking import MlflowTracking
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.retry import TrackingError
from synth_assets.schemas.records import Clause, Decision
from synth_assets.stages.promotion.decision_run import decision_run
from synth_assets.stages.promotion.policy import outcome_version
from tests.support.tracking import tracking_of

pytestmark = pytest.mark.integration

DECISION = Decision(
    *("refused", "lora_adapter", "1", "base", ""),
    [Clause("effect", False, "0.01", "0.02"), Clause("checks", True, "2 passed", "none failed")],
    "the gain is too small",
)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> MlflowTracking:
    return tracking_of(tmp_path_factory.mktemp("home"))


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["first"]))
def raw_instructions() -> dg.MaterializeResult:
    spec = dg.MetadataValue.json({"samples": 10, "temperature": 1.0})
    metadata = {"dagster/row_count": 10, "tokens_per_s": 12.5, "sample": dg.MetadataValue.md("a"), "spec": spec}
    return dg.MaterializeResult(data_version=dg.DataVersion("raw"), metadata=metadata)


@dg.asset(deps=[raw_instructions])
def filtered_instructions() -> dg.MaterializeResult:
    reasons = dg.MetadataValue.md("| too_short | 2 |")
    spec = dg.MetadataValue.json({"min_words": 3})
    metadata = {"dagster/row_count": 8, "pass_rate": 0.8, "rejected_by_reason": reasons, "spec": spec}
    return dg.MaterializeResult(data_version=dg.DataVersion("filtered"), metadata=metadata)


@dg.asset(deps=[filtered_instructions])
def preference_pairs() -> dg.MaterializeResult:
    dropped = dg.MetadataValue.json([{"of": "pairs", "reason": "small_margin", "count": 3}])
    metadata = {"dagster/row_count": 4, "dropped": dropped, "spec": dg.MetadataValue.json({"margin": 0.5})}
    return dg.MaterializeResult(data_version=dg.DataVersion("pairs"), metadata=metadata)


@dg.asset(deps=[preference_pairs])
def lora_adapter(context: dg.AssetExecutionContext, tracking: MlflowTracking) -> None:
    for _ in range(2):  # a repeated step logs nothing new
        log_stages(context, tracking.tracker(context), upstream_versions(context))
    log_or_warn(context, tracking.tracker(context), decision_run(DECISION, context.run.run_id, {"passed": 2}))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_every_stage_has_one_run(tracking: MlflowTracking, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    resources = {"tracking": tracking}
    assets = [raw_instructions, filtered_instructions, preference_pairs, lora_adapter]
    first = dg.materialize(assets, selection=assets[:1], resources=resources, instance=instance, partition_key="first")
    assert first.success
    result = dg.materialize(assets, selection=assets[1:], resources=resources, instance=instance)
    assert result.success
    tracker = tracking.tracker()
    runs = {run.info.run_name: run for run in tracker.client.search_runs([tracker.experiment])}
    decided = f"promotion_decision/{outcome_version(DECISION)[:8]}"
    assert set(runs) == {
        *("raw_instructions[first]/raw", "filtered_instructions/filtered", "preference_pairs/pairs", decided)
    }
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    raw = runs["raw_instructions[first]/raw"]
    assert raw.data.metrics == {"rows": 10, "tokens_per_s": 12.5}
    assert raw.data.params == {"samples": "10", "temperature": "1.0"}
    assert (raw.data.tags["batch"], raw.data.tags["dagster.asset_key"]) == ("first", "raw_instructions")
    filtered = runs["filtered_instructions/filtered"]
    assert filtered.data.metrics == {"rows": 8, "pass_rate": 0.8}
    table = tracker.client.download_artifacts(filtered.info.run_id, "rejected_by_reason.md", str(tmp_path))
    assert Path(table).read_text("utf-8") == "| too_short | 2 |"
    assert runs["preference_pairs/pairs"].data.metrics == {"rows": 4, "dropped/pairs/small_margin": 3}
    assert runs[decided].data.metrics == {"clauses_passed": 1, "clauses_failed": 1, "checks_passed": 2}
    assert runs[decided].data.params["outcome"] == "refused"


def test_a_failing_server_is_a_warning(tracking: MlflowTracking, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise TrackingError("MLflow failed 5 times")

    monkeypatch.setattr("resources.stage_runs.log_stage", fails)
    tracker = MlflowTracker(None, "1", tracking.lock, {})  # pyright: ignore[reportArgumentType]
    assert log_or_warn(dg.build_asset_context(), tracker, decision_run(DECISION, "r", {})) == ""
