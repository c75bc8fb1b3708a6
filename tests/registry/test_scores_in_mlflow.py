"""Scores, answers and aliases in a real MLflow database."""

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.registry.metric_verification import verify_metric
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.schemas.records import Metric
from synth_assets.schemas.tables import ITEM_SCORES
from synth_assets.stats.intervals import estimate
from synth_assets.storage.manifests import content_hash
from tests.support.tracking import CURVE, TAGS, adapter, register, tracking_of

pytestmark = pytest.mark.integration

ITEMS = pl.DataFrame(
    [
        ("lora_adapter", "f", "qa", "test", f"i{n}", f"c{n}", "strict", score, "r", "stop")
        for n, score in enumerate([1.0, 1.0, 1.0, 0.0, None])
    ]
    + [("lora_adapter", "f", "qa", "test", f"i{n}", f"c{n}", "partial", n / 4, "r", "stop") for n in range(5)],
    schema=ITEM_SCORES,
    orient="row",
)


def metric(name: str = "strict", items: pl.DataFrame = ITEMS) -> Metric:
    mine = items.filter(pl.col("metric") == name)
    found = estimate(mine["score"].to_list(), mine["cluster"].to_list())
    return Metric(
        model="lora_adapter",
        suite="qa",
        split="test",
        metric=name,
        value=found.value,
        n=found.n,
        ci_low=found.low,
        ci_high=found.high,
        interval=found.method,
        shots=0,
        harness="verifier",
        data_hash="d",
        items_sha256=content_hash(items),
        mlflow_run_id="",
    )


def test_scores_are_attached_once(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker(batch="2026-W47")
    _, version = tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)
    claims = [metric(), metric("partial")]
    assert (claims[0].value, claims[0].n) == (0.75, 4)
    assert tracker.scores_run(content_hash(ITEMS)) is None
    run_id = tracker.log_scores(claims, ITEMS, {"lora_adapter": version})
    assert tracker.log_scores(claims, ITEMS, {"lora_adapter": version}) == run_id
    assert tracker.scores_run(content_hash(ITEMS)) == run_id
    attached = json.loads(tracker.version_tags(version)["score.qa.test.strict"])
    assert (attached["value"], attached["n"], attached["run_id"]) == (0.75, 4, run_id)
    run = tracker.client.get_run(run_id)
    assert run.info.run_name == "benchmark_scores/2026-W47"
    assert run.data.metrics == {"models": 1, "items": 5}
    stored = tracker.client.download_artifacts(run_id, "items.parquet", str(tmp_path))
    assert content_hash(pl.read_parquet(stored)) == content_hash(ITEMS)


def test_scores_have_the_same_name_on_every_model(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker(batch="2026-W47")
    run_id, version = tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)
    both = pl.concat([ITEMS, ITEMS.with_columns(model=pl.lit("base"), fingerprint=pl.lit("r1"), score=0.5)])
    mine = both.filter(model="lora_adapter")
    claims = [replace(metric(items=mine), items_sha256=content_hash(both))]
    low, high = claims[0].ci_low, claims[0].ci_high
    half = estimate([0.5] * 5, [f"c{n}" for n in range(5)])
    claims.append(
        replace(
            claims[0],
            model="base",
            value=half.value,
            n=half.n,
            ci_low=half.low,
            ci_high=half.high,
            interval=half.method,
        )
    )
    for _ in range(2):  # a repeated call adds nothing
        evaluation = tracker.log_scores(claims, both, {"lora_adapter": version})
    other_data = [replace(claim, data_hash="other") for claim in claims]  # other items changed, these did not
    assert tracker.log_scores(other_data, both, {"lora_adapter": version}) == evaluation
    client = tracker.client
    trained = client.get_run(run_id)
    expected = {"": 0.75, "_low": low, "_high": high, "_n": 4.0}
    assert {name: trained.data.metrics[f"qa/test/strict{name}"] for name in expected} == expected
    assert len(client.get_metric_history(run_id, "qa/test/strict")) == 1

    models = {model.name: model for model in client.search_logged_models([tracker.experiment])}
    assert set(models) == {"lora_adapter", "base_model"}
    scores = {
        (name, score.key): (score.value, score.dataset_name, score.dataset_digest)
        for name, model in models.items()
        for score in model.metrics or []
    }
    assert scores["lora_adapter", "qa/test/strict"] == (0.75, "evaluation_items", "d")
    assert scores["base_model", "qa/test/strict"] == (0.5, "evaluation_items", "d")
    assert len(scores) == 8
    base_run = client.get_run(models["base_model"].source_run_id)
    assert (base_run.info.run_name, base_run.info.status) == ("base_model/r1", "FINISHED")
    assert [output.model_id for output in trained.outputs.model_outputs] == [models["lora_adapter"].model_id]
    (data,) = [used.dataset for used in trained.inputs.dataset_inputs if used.dataset.name == "evaluation_items"]
    assert json.loads(data.profile) == {"num_rows": 5, "rows_by_split": {"test": 5}, "nulls": {}}
    assert [column["name"] for column in json.loads(data.schema)["mlflow_colspec"]] == [
        *("suite", "split", "item_id", "cluster")
    ]
    scored = {used.model_id for used in client.get_run(evaluation).inputs.model_inputs}
    assert scored == {model.model_id for model in models.values()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 0.8}, "expected value 0.75 from the items, got 0.8"),
        ({"n": 5}, "got n 5"),
        ({"ci_low": 0.5}, "from the items, got 0.5"),
        ({"ci_high": float("nan")}, "from the items, got nan"),
        ({"interval": "bootstrap 0.95"}, "interval 'bootstrap 0.95'"),
        ({"kind": "derived"}, "must be measured to enter the registry, got derived"),
        ({"items_sha256": "typed in"}, "got typed in"),
        ({"model": "dpo_adapter"}, "no item has a score"),
        ({"unanswerable": 1}, "expected 0 unanswerable items, got 1"),
    ],
)
def test_metric_that_does_not_match_its_items_is_rejected(home: Path, change: dict[str, object], message: str) -> None:
    client = tracking_of(home).client()
    tracker = MlflowTracker(client(), "0", tracking_of(home).lock, {})
    with pytest.raises(ValueError, match=re.escape(message)):
        tracker.log_scores([metric(), replace(metric(), **change)], ITEMS, {})
    assert tracker.client.search_runs(["0"]) == []


def test_unanswerable_count_is_verified() -> None:
    left_out = pl.when(pl.col("score").is_null()).then(pl.lit("context_exceeded")).otherwise(pl.col("finish_reason"))
    items = ITEMS.with_columns(finish_reason=left_out)
    honest = replace(metric(items=items), unanswerable=1)
    verify_metric(honest, items, content_hash(items))
    with pytest.raises(ValueError, match="expected 1 unanswerable items, got 0"):
        verify_metric(replace(honest, unanswerable=0), items, content_hash(items))
    scored = items.with_columns(pl.col("score").fill_null(1.0))
    with pytest.raises(ValueError, match="1 unanswerable items have a score, such as i4"):
        verify_metric(replace(metric(items=scored), unanswerable=1), scored, content_hash(scored))


def test_aliases_move_with_their_evidence(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker()
    assert tracker.alias("champion") is None
    for weight in (1.0, 2.0):
        register(home, tmp_path / str(weight), weight)
    tracker.set_alias("champion", "1", {"decision": "promoted"})
    tracker.set_alias("champion", "2", {"decision": "promoted"})
    assert (tracker.alias("champion"), tracker.alias("challenger")) == ("2", None)
    assert tracker.version_tags("2")["decision"] == "promoted"
    with pytest.raises(KeyError, match="no version 9"):
        tracker.set_alias("champion", "9", {})
    assert tracker.alias("champion") == "2"


def test_answers_are_a_table_of_the_evaluation_run(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker()
    run_id = tracker.log_scores([metric()], ITEMS, {})
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(5)], "prompt": [f"question {n}" for n in range(5)]})
    for _ in range(2):
        tracker.log_answers(run_id, ITEMS, items)
    table = json.loads(Path(tracker.client.download_artifacts(run_id, "answers.json", str(tmp_path))).read_text())
    assert table["columns"][:4] == ["suite", "item_id", "prompt", "model"]
    assert len(table["data"]) == 10
    assert table["data"][0] == ["qa", "i0", "question 0", "lora_adapter", "r", "strict", 1.0, "stop"]
    tables = json.loads(tracker.client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert tables == [{"path": "answers.json", "type": "table"}]
