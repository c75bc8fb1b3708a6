"""Scores typed in by hand, and adapters that own them."""

from collections.abc import Callable, Mapping, Sequence

import polars as pl
import pytest

from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import SUITES
from synth_assets.schemas.records import AdapterRecord
from synth_assets.schemas.tables import ITEM_SCORES
from tests.support.records import make_adapter

SUITE = "world_instructions"


def adapter(name: str, method: str, role: str = "candidate", parameters: int = 100, failure: str = "") -> AdapterRecord:
    return make_adapter(
        name=name,
        method=method,
        role=role,
        fingerprint=f"fingerprint of {name}",
        path=f"adapters/{name}",
        model_version="1",
        mlflow_run_id="run",
        base_revision="revision",
        trainable_parameters=parameters,
        total_parameters=1_000,
        failure=failure,
    )


ADAPTERS = [
    adapter("prompt_tuning_adapter", "prompt_tuning", parameters=20),
    adapter("lora_adapter", "lora"),
    adapter("rejection_sampling_adapter", "rejection_sampling"),
    adapter("dpo_adapter", "dpo"),
    adapter("dpo_control_adapter", "dpo", role="control"),
]


@pytest.fixture(scope="session")
def items() -> pl.DataFrame:
    return item_table([SUITES[SUITE]])


@pytest.fixture
def scored(items: pl.DataFrame) -> Callable[[Mapping[str, Sequence[float | None]]], pl.DataFrame]:
    """Makes ITEM_SCORES in which each model has these strict scores, on the first items of both splits."""

    def make(by_model: Mapping[str, Sequence[float | None]]) -> pl.DataFrame:
        rows = []
        for model, scores in by_model.items():
            for split in ("validation", "test"):
                asked = items.filter(suite=SUITE, split=split).head(len(scores))
                for item, score in zip(asked.iter_rows(named=True), scores, strict=True):
                    rows.append(
                        {
                            "model": model,
                            "fingerprint": f"fingerprint of {model}",
                            "suite": SUITE,
                            "split": split,
                            "item_id": item["item_id"],
                            "cluster": item["cluster"],
                            "metric": "strict",
                            "score": score,
                            "response": f"{model} says {score}",
                            "finish_reason": "stop",
                        }
                    )
        return pl.DataFrame(rows, schema=ITEM_SCORES)

    return make


@pytest.fixture
def adapters() -> list[AdapterRecord]:
    return list(ADAPTERS)
