"""The three assets on the embedded base model and two adapters that were never trained."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from resources.reward import RewardModels
from resources.storage import AssetStorage, SynthHome
from resources.tracking import MlflowTracking
from synth_assets.evals.scoring import EvaluationSpec, choose_items
from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import find_suites
from synth_assets.schemas.records import AdapterRecord, Comparison, ModelRecord
from synth_assets.schemas.serialization import from_json, to_json
from synth_assets.schemas.tables import PAIRS, SFT_ROWS
from synth_assets.stages.benchmarks.assets import benchmark_items
from synth_assets.stages.evaluation.assets import benchmark_scores, comparison
from synth_assets.storage.manifests import file_sha256, folder_hash, write_manifest
from synth_assets.training.methods import ADAPTERS
from tests.support.records import make_adapter

pytestmark = pytest.mark.integration

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT 0.21

METHODS = {
    "prompt_tuning_adapter": "prompt_tuning",
    "lora_adapter": "lora",
    "rejection_sampling_adapter": "rejection_sampling",
    "dpo_adapter": "dpo",
    "dpo_control_adapter": "dpo",
    "on_policy_dpo_adapter": "on_policy_dpo",
    "on_policy_dpo_control_adapter": "on_policy_dpo",
}
TRAINED = ("prompt_tuning_adapter", "lora_adapter")
LIMITS = {"validation_items": 12, "test_items": 12, "max_tokens": 24}


def rows(schema: pl.Schema, **values: str) -> pl.LazyFrame:
    """One row of the train split in which all else is null."""
    return pl.LazyFrame([{"split": "train", **values}], schema=schema)


class Deployment:
    """A home with two adapters in the registry, and the assets over it."""

    def __init__(self, root: Path) -> None:
        self.home = SynthHome(folder=str(root))
        self.hardware = Hardware(tier="cpu")
        self.inference = Inference(hardware=self.hardware)
        self.tracking = MlflowTracking(home=self.home)
        self.base = self.inference.resolve("base")
        self.records = {name: self.adapter(name) for name in ADAPTERS}
        self.instance = dg.DagsterInstance.ephemeral()

    def adapter(self, name: str) -> AdapterRecord:
        record = make_adapter(
            name=name,
            method=METHODS[name],
            role="control" if "control" in name else "candidate",
            base_revision=self.base.revision,
        )
        if name not in TRAINED:
            return replace(record, failure="the loss was NaN at step 2")
        folder = self.home.adapters() / name
        self.untrained(name, folder)
        manifest = write_manifest(folder, {"name": name})
        path = folder.relative_to(self.home.root()).as_posix()
        record = replace(record, fingerprint=folder_hash(folder), path=path, manifest_sha256=manifest)
        run_id, version = self.tracking.tracker().log_training(record, folder, [{"step": 1, "loss": 1.0}], {})
        return replace(record, mlflow_run_id=run_id, model_version=version)

    def untrained(self, name: str, folder: Path) -> None:
        import torch
        from peft import LoraConfig, PromptTuningConfig, get_peft_model

        torch.manual_seed(0)
        network, _ = self.inference.load_base(self.base)
        config: Any = {
            "lora_adapter": LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False),
            "prompt_tuning_adapter": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        }[name]
        get_peft_model(network, config).save_pretrained(str(folder))

    def seen_prompt(self) -> str:
        """A test item that was scored, as if training had seen it."""
        chosen = choose_items(item_table(find_suites(["world_instructions"])), EvaluationSpec(test_items=12))
        return chosen.filter(split="test")["prompt"][0]

    def materialise(self, *selection: str) -> dg.ExecuteInProcessResult:
        @dg.asset
        def base_model() -> ModelRecord:
            return self.base

        def given(name: str) -> dg.AssetsDefinition:
            return dg.asset(name=name)(lambda: self.records[name])

        @dg.asset
        def sft_dataset() -> pl.LazyFrame:
            repeated = self.seen_prompt()
            return rows(SFT_ROWS, instruction=repeated, response="Yes.")

        @dg.asset
        def preference_pairs() -> pl.LazyFrame:
            return rows(PAIRS, instruction="Say yes.", chosen="Yes.")

        @dg.asset
        def reward_model() -> ModelRecord:
            return self.inference.resolve("reward")

        @dg.asset
        def on_policy_pairs() -> pl.LazyFrame:
            return rows(PAIRS, instruction="Say no.", chosen="No.")

        tables = [base_model, reward_model, sft_dataset, preference_pairs, on_policy_pairs]
        data = [*tables, *(given(name) for name in ADAPTERS)]
        return dg.materialize(
            [*data, benchmark_items, benchmark_scores, comparison],
            selection=list(selection) or None,
            resources={
                "home": self.home,
                "hardware": self.hardware,
                "inference": self.inference,
                "rewards": RewardModels(hardware=self.hardware),
                "tracking": self.tracking,
                "io_manager": AssetStorage(home=self.home),
            },
            instance=self.instance,
            run_config={
                "ops": {
                    "benchmark_scores": {"config": LIMITS},
                    "comparison": {"config": {"items": 8}},
                }
            },
        )


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("evaluation"))
    yield deployment
    deployment.instance.dispose()


@pytest.fixture(scope="module")
def result(deployment: Deployment) -> dg.ExecuteInProcessResult:
    return deployment.materialise()


def test_base_and_trained_adapters_are_scored_on_the_same_items(result: dg.ExecuteInProcessResult) -> None:
    scores = result.asset_value("benchmark_scores")
    assert scores["model"].unique(maintain_order=True).to_list() == ["base", *TRAINED]
    counts = scores.group_by("model", maintain_order=True).agg(pl.col("item_id").n_unique(), pl.len())
    # 12 validation and 12 test items of two metrics, 12 choices of one
    assert counts.rows() == [(model, 36, 60) for model in ("base", *TRAINED)]
    assert scores["score"].is_between(0, 1).all()


def test_the_comparison_shows_failures_and_its_evidence(
    result: dg.ExecuteInProcessResult, deployment: Deployment
) -> None:
    found = result.asset_value("comparison")
    assert isinstance(found, Comparison)
    assert found.candidate in TRAINED
    assert set(found.failures) == set(ADAPTERS) - set(TRAINED)
    assert {metric.mlflow_run_id for metric in found.metrics} == {
        deployment.tracking.tracker().scores_run(found.metrics[0].items_sha256)
    }
    (event,) = result.asset_materializations_for_node("comparison")
    figure = event.metadata["figure"].value
    assert figure.startswith("![benchmark comparison](data:image/png;base64,")
    assert len(figure) < 42_000
    assert "failed: the loss was NaN" in event.metadata["scores"].value


def test_scores_without_training_overlap_are_reported(result: dg.ExecuteInProcessResult) -> None:
    found = result.asset_value("comparison")
    assert {(m.suite, m.metric, m.n, m.kind) for m in found.without_overlap} == {
        ("world_instructions", "strict", 11, "derived"),
        ("world_instructions", "lenient", 11, "derived"),
        ("world_choice", "acc", 12, "derived"),
    }
    assert from_json(Comparison, to_json(found)) == found
    (win_rate,) = found.win_rates
    assert (win_rate.model, win_rate.suite, win_rate.n) == (found.candidate, "world_instructions", 8)
    assert (win_rate.kind, win_rate.harness.split(" ")[:2]) == ("derived", ["reward", "model"])
    assert 0 <= win_rate.ci_low <= win_rate.value <= win_rate.ci_high <= 1
    (event,) = result.asset_materializations_for_node("comparison")
    assert event.metadata["overlapping_items"].value == 1
    assert "| base | world_choice | acc |" in str(event.metadata["without_overlap"].value)
    assert r"world\_choice" in str(event.metadata["detectable"].value)
    assert "world_choice" in str(event.metadata["guards"].value)


def test_the_report_is_in_the_home_and_in_mlflow(result: dg.ExecuteInProcessResult, deployment: Deployment) -> None:
    found = result.asset_value("comparison")
    (event,) = result.asset_materializations_for_node("comparison")
    page = deployment.home.root() / str(event.metadata["report"].value).removeprefix("/home/")
    assert page == deployment.home.report(event.tags["dagster/data_version"]) / "report.html"
    assert from_json(Comparison, (page.parent / "report.json").read_text("utf-8")) == found
    run_id = found.metrics[0].mlflow_run_id
    assert f'<a href="{deployment.tracking.run_url(run_id)}">' in page.read_text("utf-8")
    logged = {Path(file.path).name for file in deployment.tracking.client()().list_artifacts(run_id, "report")}
    assert logged == {file.name for file in page.parent.iterdir()}
    assert {"report.md", "report.html", "report.json", "summary.csv", "tradeoff_analysis.png"} <= logged


def test_scores_are_attached_to_their_versions(result: dg.ExecuteInProcessResult, deployment: Deployment) -> None:
    assert result.success
    tags = deployment.tracking.tracker().version_tags(deployment.records["lora_adapter"].model_version)
    assert "score.world_instructions.test.strict" in tags


def test_a_second_run_asks_no_model_and_changes_no_version(
    result: dg.ExecuteInProcessResult, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an unchanged model was loaded again")

    monkeypatch.setattr(Inference, "generator", refuse)
    monkeypatch.setattr(Inference, "load_base", refuse)
    again = deployment.materialise()
    for name in ("benchmark_items", "benchmark_scores", "comparison"):
        versions = [
            run.asset_materializations_for_node(name)[0].tags["dagster/data_version"] for run in (result, again)
        ]
        assert versions[0] == versions[1]


def test_an_adapter_whose_files_changed_is_not_scored(
    result: dg.ExecuteInProcessResult, deployment: Deployment
) -> None:
    assert result.success
    config = deployment.home.root() / deployment.records["lora_adapter"].path / "adapter_config.json"
    before, whole = file_sha256(config), config.read_bytes()
    config.write_bytes(whole + b" ")
    try:
        with pytest.raises(Exception, match=r"adapter_config\.json does not match"):
            deployment.materialise()
    finally:
        config.write_bytes(whole)
    assert file_sha256(config) == before
