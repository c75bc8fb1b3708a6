"""Scores in MLflow: one run per evaluation, and the same metric names on the run and the logged model of each model."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.registry.datasets import dataset_input
from synth_assets.registry.logged_models import BASE_MODEL, base_model
from synth_assets.registry.run_metrics import DIGEST_LENGTH, log_numbers, log_points
from synth_assets.registry.tags import model_id_of, score_tag, score_text
from synth_assets.schemas.records import BASE, Metric

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.entities import Metric as Point

    from synth_assets.registry.mlflow_tracker import MlflowTracker

ITEMS, METRICS = "items.parquet", "metrics.json"  # artifacts of an evaluation run
EVALUATED = "evaluation_items"  # name of the evaluation data in MLflow; its digest is the data hash


def log_evaluation(
    tracker: "MlflowTracker",
    metrics: Sequence[Metric],
    items: pl.DataFrame,
    items_hash: str,
    versions: Mapping[str, str],
) -> str:
    """Log an evaluation once, add its scores to every scored model, and return the run id.

    Args:
        tracker: the tracker.
        metrics: verified metrics.
        items: their per-item scores.
        items_hash: content hash of `items`.
        versions: model -> version of the registered model, whose tags refer to the run.
    """
    client = tracker.client
    run = tracker.run_with({"items_hash": items_hash}) or client.create_run(
        tracker.experiment,
        run_name=f"benchmark_scores/{tracker.tags.get('batch') or items_hash[:8]}",
        tags={**tracker.tags, "items_hash": items_hash},
    )
    run_id = run.info.run_id
    if run.info.status != "FINISHED":
        _log_tables(tracker, run, metrics, items)
        client.set_terminated(run_id, "FINISHED")
    targets = {m: target for m, version in versions.items() if (target := _version_target(tracker, version))[0]}
    if not items.filter(model=BASE).is_empty():
        targets[BASE] = _base_target(tracker, items)
    scored, data = _scored_models(tracker, run_id), _evaluation_data(metrics, items)
    client.log_inputs(run_id, [data])
    for model, (target_run, model_id) in targets.items():
        if model_id not in scored:
            client.log_inputs(target_run, [data])
            _log_model_scores(tracker, run, target_run, model_id, [each for each in metrics if each.model == model])
    for model, version in versions.items():
        tags = {score_tag(each): score_text(each, run_id) for each in metrics if each.model == model}
        tracker.tag_version(version, tags)
    return run_id


def score_points(metrics: Sequence[Metric], timestamp_ms: int, model_id: str | None = None) -> "list[Point]":
    """Return the metrics of one model as MLflow metrics: `<suite>/<split>/<metric>`, with `_low`, `_high` and `_n`.

    The names do not contain the model, so that MLflow draws all models in one chart.
    """
    from mlflow.entities import Metric as Point

    points: list[Point] = []
    for metric in metrics:
        name = f"{metric.suite}/{metric.split}/{metric.metric}"
        numbers = {name: metric.value, f"{name}_low": metric.ci_low, f"{name}_high": metric.ci_high}
        numbers[f"{name}_n"] = metric.n
        if metric.unanswerable:
            numbers[f"{name}_unanswerable"] = metric.unanswerable
        data = {"dataset_name": EVALUATED, "dataset_digest": metric.data_hash[:DIGEST_LENGTH]}
        points += [
            Point(key, float(value), timestamp_ms, 0, model_id=model_id, **data) for key, value in numbers.items()
        ]
    return points


def _log_tables(tracker: "MlflowTracker", run: "Run", metrics: Sequence[Metric], items: pl.DataFrame) -> None:
    client, run_id = tracker.client, run.info.run_id
    log_numbers(client, run, {"models": items["model"].n_unique(), "items": items["item_id"].n_unique()})
    rows = [asdict(metric) for metric in metrics]
    client.log_text(run_id, json.dumps(rows, sort_keys=True, indent=1), METRICS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ITEMS
        items.write_parquet(path)
        client.log_artifact(run_id, str(path))


def _version_target(tracker: "MlflowTracker", version: str) -> tuple[str, str | None]:
    """Return the training run and the logged model of a version; the model is None if it was registered by hand."""
    registered = tracker.registered(version)
    return str(registered.run_id or ""), model_id_of(registered)


def _base_target(tracker: "MlflowTracker", items: pl.DataFrame) -> tuple[str, str | None]:
    """Return the run and the logged model of the base model, creating them once per revision."""
    client = tracker.client
    revision = str(items.filter(model=BASE)["fingerprint"][0])
    identity = {"asset": BASE_MODEL, "base_revision": revision}
    with tracker.lock(f"base-{revision}"):
        run = tracker.run_with(identity)
        if run is None:
            name = f"{BASE_MODEL}/{revision[:8]}"
            tags = {**tracker.tags, **identity, "role": BASE}
            run = client.create_run(tracker.experiment, run_name=name, tags=tags)
        if run.info.status != "FINISHED":
            client.set_terminated(run.info.run_id, "FINISHED")
        return run.info.run_id, base_model(tracker, run.info.run_id, identity).model_id


def _evaluation_data(metrics: Sequence[Metric], items: pl.DataFrame) -> "DatasetInput":
    """Return the scored items as a dataset; without metrics it has the items' own hash."""
    asked = items.select("suite", "split", "item_id", "cluster").unique(maintain_order=True)
    digest = metrics[0].data_hash if metrics else ""
    return dataset_input(EVALUATED, asked, context="evaluation", digest=digest)


def _scored_models(tracker: "MlflowTracker", run_id: str) -> set[str]:
    """Return the logged models that have the scores of an evaluation.

    The same scores may come again with another data hash, which MLflow refuses for the same time and model.
    """
    inputs = tracker.client.get_run(run_id).inputs
    return {model.model_id for model in inputs.model_inputs} if inputs else set()


def _log_model_scores(
    tracker: "MlflowTracker", evaluation: "Run", run_id: str, model_id: str | None, metrics: Sequence[Metric]
) -> None:
    """Add scores to the run and the logged model of one model, and show the model as an input of the evaluation."""
    from mlflow.entities import LoggedModelInput

    if metrics:
        log_points(tracker.client, run_id, score_points(metrics, evaluation.info.start_time, model_id))
    if model_id:
        tracker.client.log_inputs(evaluation.info.run_id, models=[LoggedModelInput(model_id)])
