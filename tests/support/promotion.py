"""A pipeline of fake assets around the real promotion: data, scores and models of one week."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from resources.check_results import CheckResults, upstream_versions
from resources.hardware import Hardware
from resources.inference import Inference
from resources.storage import AssetStorage, SynthHome
from resources.tracking import MlflowTracking
from synth_assets.cli.registry import champion_text
from synth_assets.cli.session import Session
from synth_assets.embedded import world
from synth_assets.embedded.answers import good_answer
from synth_assets.evals.scoring import metrics
from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import SUITES
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.registry.mlflow_tracker import MODEL, MlflowTracker
from synth_assets.registry.model_versions import CARD
from synth_assets.schemas.records import (
    AdapterRecord,
    ChampionRecord,
    Comparison,
    Decision,
    Metric,
    ModelRecord,
)
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import ITEM_SCORES
from synth_assets.stages.promotion.assets import champion, promotion_decision
from synth_assets.stages.promotion.config import PromotionConfig
from synth_assets.storage.manifests import content_hash, folder_hash, write_manifest
from synth_assets.storage.retractions import Recall, add_recalls
from synth_assets.training.methods import ADAPTERS
from tests.support.records import make_adapter

SUITE = "world_instructions"
METRIC = "strict"
ITEMS, SEALED_ITEMS = 200, 120
BASE_REVISION = "r"
WEIGHTS = "adapter_model.safetensors"
FIRST = {split: item_table([SUITES[SUITE]]).filter(split=split) for split in ("test", "sealed")}
NUMBERS = {prompt: (split, n) for split, items in FIRST.items() for n, prompt in enumerate(items["prompt"])}
PROMPTS: list[tuple[str, str]] = []
"""Adapter folder ("" for the base) and split of each prompt that a model answered during a decision."""


class Week(dg.ConfigurableResource):
    """Data, items and scores of one week, and whether the check on the data passes."""

    data: str
    right: int  # items of ITEMS that the adapter answers correctly; the base answers none
    sealed: int = SEALED_ITEMS  # sealed items that the adapter answers correctly
    good: bool = True
    skipped: int = 0  # number of leading test items that are left out
    base: str = BASE_REVISION

    def items(self) -> pl.DataFrame:
        test = FIRST["test"].slice(self.skipped, ITEMS)
        return pl.concat([test, FIRST["sealed"].head(SEALED_ITEMS)])


@dataclass
class Learned:
    """Answers the first test and sealed items correctly; its weights hold how many."""

    adapter: Path | None
    model: str = "fake"
    revision: str = "1"
    engine: str = "fake 1"
    context_tokens: int = 256

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        return list(messages[-1]["content"].encode())

    encode_user_turn = encode_chat

    def encode_template(self, template: str) -> list[int]:
        return list(template.encode())

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        return [Completion(self.answer(bytes(prompt).decode()), "stop", len(prompt), 7) for prompt in prompts]

    def answer(self, prompt: str) -> str:
        right = load_file(self.adapter / WEIGHTS)["weight"].tolist() if self.adapter else [0, 0]
        split, number = NUMBERS[prompt]
        PROMPTS.append((self.adapter.name if self.adapter else "", split))
        if number >= right[split == "sealed"]:
            return "?"
        task = world.find(prompt)
        assert task is not None
        return good_answer(task, Random(0))


class LearnedInference(Inference):
    """Loads `Learned` models."""

    def engine(self, adapter: Path | None = None) -> str:
        return "fake 1"

    def generator(self, model: ModelRecord, adapter: Path | None = None) -> Any:  # noqa: ANN401
        return Learned(adapter)


@dg.asset
def base_model(week: Week) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        value=ModelRecord("base", "owner/base", week.base, "embedded", 512), data_version=dg.DataVersion(week.base)
    )


@dg.asset
def benchmark_items(week: Week) -> dg.MaterializeResult:
    items = week.items()
    return dg.MaterializeResult(value=items, data_version=dg.DataVersion(content_hash(items)))


@dg.asset
def sft_dataset(week: Week) -> dg.MaterializeResult:
    return dg.MaterializeResult(value=pl.DataFrame({"row": [week.data]}), data_version=dg.DataVersion(week.data))


@dg.asset_check(asset=sft_dataset)
def no_leak(week: Week) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=week.good)


def record(name: str, failure: str = "") -> AdapterRecord:
    return make_adapter(
        name=name,
        manifest_sha256="m",
        base_revision=BASE_REVISION,
        spec={"rank": 8},
        peak_memory_bytes=3,
        failure=failure,
    )


@dg.asset
def lora_adapter(
    context: dg.AssetExecutionContext, sft_dataset: pl.DataFrame, week: Week, tracking: MlflowTracking
) -> dg.MaterializeResult:
    key = fingerprint(sft_dataset["row"][0])
    folder = tracking.home.adapters() / key
    folder.mkdir(exist_ok=True)
    save_file({"weight": np.array([week.right, week.sealed], np.float32)}, folder / WEIGHTS)
    write_manifest(folder, {})
    trained = replace(
        record("lora_adapter"), fingerprint=key, path=f"adapters/{key}", data_versions=upstream_versions(context)
    )
    run_id, version = tracking.tracker(context).log_training(trained, folder, [], {})
    trained = replace(trained, mlflow_run_id=run_id, model_version=version)
    tracking.home.leave_row_manifest(
        "lora_adapter", folder_hash(folder), pl.DataFrame({"row_id": [week.data], "fate": ["train"]})
    )
    return dg.MaterializeResult(value=trained, data_version=dg.DataVersion(folder_hash(folder)))


def failed_adapter(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def adapter() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=record(name, "out of luck"), data_version=dg.DataVersion("failed"))

    return adapter


def rows(model: str, key: str, right: int, items: pl.DataFrame) -> list[tuple[object, ...]]:
    return [
        (model, key, SUITE, "test", item, cluster, metric, float(n < right), "", "stop")
        for n, (item, cluster) in enumerate(items.filter(split="test").select("item_id", "cluster").iter_rows())
        for metric in SUITES[SUITE].metrics
    ]


def measured(scores: pl.DataFrame, items: pl.DataFrame) -> list[Metric]:
    return metrics(scores, engines={"base": "fake 1", "lora_adapter": "fake 1"}, data_hash=content_hash(items))


@dg.asset
def benchmark_scores(
    context: dg.AssetExecutionContext,
    lora_adapter: AdapterRecord,
    benchmark_items: pl.DataFrame,
    week: Week,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    items = rows("base", "r", 0, benchmark_items)
    items += rows("lora_adapter", lora_adapter.fingerprint, week.right - week.skipped, benchmark_items)
    scores = pl.DataFrame(items, schema=ITEM_SCORES, orient="row")
    values = measured(scores, benchmark_items)
    tracking.tracker(context).log_scores(values, scores, {"lora_adapter": lora_adapter.model_version})
    return dg.MaterializeResult(value=scores, data_version=dg.DataVersion(content_hash(scores)))


@dg.asset
def comparison(benchmark_scores: pl.DataFrame, benchmark_items: pl.DataFrame) -> dg.MaterializeResult:
    value = Comparison(measured(benchmark_scores, benchmark_items), [], "lora_adapter", {})
    return dg.MaterializeResult(value=value, data_version=dg.DataVersion("c"))


@dg.asset_check(asset=comparison)
def metrics_are_complete(comparison: Comparison) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=bool(comparison.metrics))


ASSETS = [
    base_model,
    benchmark_items,
    sft_dataset,
    lora_adapter,
    *(failed_adapter(name) for name in ADAPTERS if name != "lora_adapter"),
    benchmark_scores,
    comparison,
    promotion_decision,
    champion,
]
CHECKS = [no_leak, metrics_are_complete]


@dataclass
class Deployment:
    """A home, an instance and what runs on them."""

    home: SynthHome
    instance: dg.DagsterInstance

    @property
    def tracker(self) -> MlflowTracker:
        return MlflowTracking(home=self.home).tracker()

    def run(self, week: Week, selection: dg.AssetSelection | None = None, **options: object) -> Decision:
        resources = {
            "week": week,
            "home": self.home,
            "tracking": MlflowTracking(home=self.home),
            "inference": LearnedInference(hardware=Hardware(tier="cpu")),
            "evidence": CheckResults.of([*ASSETS, *CHECKS]),
            "io_manager": AssetStorage(home=self.home),
        }
        job = dg.define_asset_job("job", selection or dg.AssetSelection.all())
        definitions = dg.Definitions(ASSETS, asset_checks=CHECKS, jobs=[job], resources=resources)
        config = dg.RunConfig(ops={"promotion_decision": PromotionConfig(**options)})  # pyright: ignore[reportArgumentType]
        resolved = definitions.resolve_job_def("job")
        done = resolved.execute_in_process(instance=self.instance, run_config=config, tags={"by": "ada"})
        assert done.success
        decision = self.home.record("promotion_decision", Decision)
        assert decision is not None
        return decision

    def promote(self, **options: object) -> Decision:
        return self.run(Week(data="unused", right=0), dg.AssetSelection.assets(promotion_decision, champion), **options)

    def champion(self) -> ChampionRecord:
        record = self.home.record("champion", ChampionRecord)
        assert record is not None
        assert (self.tracker.alias("champion") or "") == record.version
        return record


GOOD = Week(data="week 1", right=100)


def failed(decision: Decision) -> list[str]:
    return [clause.name for clause in decision.clauses if not clause.passed]


def actual_of(decision: Decision, clause: str) -> str:
    return next(c.actual for c in decision.clauses if c.name == clause)


def session_of(deployment: Deployment) -> Session:
    session = Session(deployment.home.root(), "cpu")
    session.__dict__["instance"] = deployment.instance
    return session


def champion_words(deployment: Deployment) -> str:
    return " ".join(champion_text(session_of(deployment)).split())


def card_of(deployment: Deployment, version: str) -> str:
    client = deployment.tracker.client
    with TemporaryDirectory() as folder:
        run_id = str(client.get_model_version(MODEL, version).run_id)
        return Path(client.download_artifacts(run_id, CARD, folder)).read_text("utf-8")


def recall_row(deployment: Deployment, row: str, reason: str = "wrong", action: Any = "recalled") -> None:  # noqa: ANN401
    add_recalls(deployment.home.recalls(), [Recall(row, action, reason, "ada", "2026-11-20T12:00:00")])
