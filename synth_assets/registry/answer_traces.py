"""Traces of a sample of scored answers, with prompt, answer and score, for MLflow's page of traces."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from synth_assets.registry.logged_models import BASE_MODEL
from synth_assets.schemas.records import BASE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run, Span, TraceInfo

TRACES = 20  # of each evaluation
PREVIEW_CHARACTERS = 200


def log_answer_traces(client: "MlflowClient", run_id: str, scores: pl.DataFrame, items: pl.DataFrame) -> None:
    """Log TRACES answers to test items as traces of a run; a later call with the same scores adds nothing.

    A trace has no duration: answers are generated in batches, so the time of one answer is not measured.

    Args:
        client: the MLflow client.
        run_id: the evaluation run.
        scores: ITEM_SCORES of all models.
        items: BENCHMARK_ITEMS.
    """
    from mlflow.tracing.client import TracingClient

    run, tracing = client.get_run(run_id), TracingClient(client.tracking_uri)
    experiment = run.info.experiment_id
    logged = tracing.search_traces(locations=[experiment], run_id=run_id, include_spans=False)
    known = {trace.info.trace_id for trace in logged}
    models, spans = _logged_models(client, run), []
    for row in sampled_answers(scores, items).iter_rows(named=True):
        span = _span(row, run)
        if span.trace_id not in known:
            tracing.start_trace(_info(row, run, span, models.get(row["model"], "")))
            spans.append(span)
    if spans:
        tracing.log_spans(experiment, spans)


def sampled_answers(scores: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Return TRACES written answers to test items, spread evenly over the models; the same scores give the same rows.

    An answer that several metrics score has the first of them.
    """
    key = pl.concat_str("model", "suite", "item_id", separator="\0")
    written = scores.filter(pl.col("split") == "test", pl.col("response").is_not_null())
    return (
        written.unique(["model", "suite", "item_id"], keep="first", maintain_order=True)
        .with_columns(order=key.map_elements(_digest, return_dtype=pl.String))
        .sort("order")
        .with_columns(turn=pl.int_range(pl.len()).over("model"))
        .sort("turn", "model")
        .head(TRACES)
        .join(items.select("item_id", "prompt").unique("item_id"), on="item_id", how="left", maintain_order="left")
        .drop("order", "turn")
    )


def _logged_models(client: "MlflowClient", run: "Run") -> dict[str, str]:
    """Return the id of the logged model of each model that the run scored."""
    used = run.inputs.model_inputs if run.inputs else []
    models = {client.get_logged_model(each.model_id).name: each.model_id for each in used}
    return {BASE if name == BASE_MODEL else name: model_id for name, model_id in models.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _span(row: Mapping[str, Any], run: "Run") -> "Span":
    """Return the only span of a trace, at the start of the evaluation; its id is derived from the row and the run."""
    from mlflow.entities import Span, SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    digest = _digest(json.dumps([run.info.run_id, row["model"], row["suite"], row["item_id"]]))
    trace_id, start_ns = f"tr-{digest[:32]}", run.info.start_time * 1_000_000
    attributes = {
        SpanAttributeKey.REQUEST_ID: trace_id,
        SpanAttributeKey.SPAN_TYPE: SpanType.LLM,
        SpanAttributeKey.INPUTS: {"prompt": row["prompt"]},
        SpanAttributeKey.OUTPUTS: row["response"],
        "finish_reason": row["finish_reason"],
    }
    return Span.from_dict(
        {
            "name": row["model"],
            "trace_id": trace_id,
            "span_id": digest[32:48],
            "parent_span_id": None,
            "start_time_unix_nano": start_ns,
            "end_time_unix_nano": start_ns,
            "attributes": {name: json.dumps(value) for name, value in attributes.items()},
            "status": {"code": "OK", "message": ""},
        }
    )


def _info(row: Mapping[str, Any], run: "Run", span: "Span", model_id: str) -> "TraceInfo":
    from mlflow.entities import AssessmentSource, Feedback, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    score = Feedback(name=row["metric"], value=row["score"], source=AssessmentSource("CODE", row["suite"]))
    metadata = {TraceMetadataKey.SOURCE_RUN: run.info.run_id, TraceMetadataKey.MODEL_ID: model_id}
    return TraceInfo(
        trace_id=span.trace_id,
        trace_location=TraceLocation.from_experiment_id(run.info.experiment_id),
        request_time=run.info.start_time,
        state=TraceState.OK,
        request_preview=str(row["prompt"])[:PREVIEW_CHARACTERS],
        response_preview=str(row["response"])[:PREVIEW_CHARACTERS],
        trace_metadata={name: value for name, value in metadata.items() if value},
        tags={
            TraceTagKey.TRACE_NAME: row["model"],
            **{name: str(row[name]) for name in ("model", "suite", "item_id")},
        },
        assessments=[] if row["score"] is None else [score],
    )
