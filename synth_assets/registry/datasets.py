"""Datasets and tables of MLflow runs: schema and profile of the rows of a run, and answers to read in the UI."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from synth_assets.registry.run_metrics import DIGEST_LENGTH
from synth_assets.storage.manifests import content_hash

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

CONTEXT = "mlflow.data.context"  # tag of a dataset that says what it was used for
TABLES = "mlflow.loggedArtifacts"  # tag of a run by which MLflow shows an artifact as a table
ANSWERS = "answers.json"
ANSWERS_PER_MODEL = 200  # of each suite; items.parquet has all of them


def dataset_input(name: str, rows: pl.DataFrame, *, context: str, digest: str = "") -> "DatasetInput":
    """Return rows as a dataset with schema and profile.

    Args:
        name: name of the dataset in MLflow.
        rows: its rows; they are not stored.
        context: what it is used for, such as "training".
        digest: its version; default: the content hash.
    """
    from mlflow.data.polars_dataset import infer_schema
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=name,
        digest=(digest or content_hash(rows))[:DIGEST_LENGTH],
        source_type="dagster asset",
        source=json.dumps({"asset": name}),
        schema=json.dumps({"mlflow_colspec": infer_schema(rows).to_dict()}),
        profile=json.dumps(_profile(rows)),
    )
    return DatasetInput(dataset, [InputTag(CONTEXT, context)])


def log_answers(client: "MlflowClient", run_id: str, scores: pl.DataFrame, items: pl.DataFrame) -> None:
    """Log the answers of all models to the first test items of each suite as a table of a run, replacing it.

    Args:
        client: the MLflow client.
        run_id: the evaluation run.
        scores: ITEM_SCORES of all models.
        items: BENCHMARK_ITEMS.
    """
    prompts = items.select("item_id", "prompt")
    asked = scores.filter(split="test").select("suite", "item_id").unique(maintain_order=True)
    asked = asked.group_by("suite", maintain_order=True).head(ANSWERS_PER_MODEL)
    table = (
        scores.join(asked, on=["suite", "item_id"], how="semi", maintain_order="left")
        .join(prompts, on="item_id", how="left", maintain_order="left")
        .select("suite", "item_id", "prompt", "model", "response", "metric", "score", "finish_reason")
    )
    text = json.dumps({"columns": table.columns, "data": table.rows()})
    client.log_text(run_id, text, ANSWERS)
    client.set_tag(run_id, TABLES, json.dumps([{"path": ANSWERS, "type": "table"}]))


def _profile(rows: pl.DataFrame) -> Mapping[str, Any]:
    """Return the number of rows, also by split where there is one, and the share of empty cells by column."""
    profile: dict[str, Any] = {"num_rows": rows.height}
    if "split" in rows.columns:
        counts = rows.group_by("split").len().sort("split")
        profile["rows_by_split"] = dict(counts.iter_rows())
    nulls = {column: rows[column].null_count() for column in rows.columns}
    profile["nulls"] = {column: count for column, count in nulls.items() if count}
    return profile
