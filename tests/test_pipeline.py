"""Run the whole pipeline on the embedded models once, then check what later runs recompute and reuse.

Each fixture is a run in the deployment that the previous fixtures left.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from rich.console import Console

from resources.check_results import DATA_VERSION
from synth_assets.cli.recall import Request, recall
from synth_assets.cli.session import Session
from synth_assets.cli.trace import find_version, trace_text
from synth_assets.registry.mlflow_tracker import MODEL
from synth_assets.registry.model_versions import model_versions
from synth_assets.schemas.tables import IMPORTED_BATCH
from synth_assets.stages.generation.import_store import ImportRequest, import_file
from synth_assets.storage.blocks import BLOCK_ROWS
from synth_assets.storage.lineage import TAINTED, training_rows
from tests.support import small_deployment
from tests.support.fakes import jsonl
from tests.support.tracking import tracking_of

pytestmark = pytest.mark.integration

SAMPLES = small_deployment.SMALL_SAMPLES
SECOND_SAMPLES = 128
TAGS = {"tier": "cpu", "trigger": "test"}


@dataclass(frozen=True)
class Outcome:
    """Result of a run: data versions by asset, check evaluations, and the stored versions, runs and blocks after it."""

    success: bool
    versions: dict[str, str]
    checks: dict[str, dg.AssetCheckEvaluation]
    model_versions: int
    mlflow_runs: int
    shards: frozenset[str]


@dataclass(frozen=True)
class Deployment:
    """A small deployment, its job and its event log."""

    home: Path
    job: dg.JobDefinition
    instance: dg.DagsterInstance

    def run(self, batch: str, select: str | None = None, config: dict[str, dict[str, object]] | None = None) -> Outcome:
        self.instance.add_dynamic_partitions("batches", [batch])
        assets = select and dg.AssetSelection.from_string(select).required_multi_asset_neighbors()
        result = self.job.execute_in_process(
            instance=self.instance,
            partition_key=batch,
            tags={**TAGS, "batch": batch},
            run_config={
                "ops": {asset: {"config": fields} for asset, fields in (config or {}).items()},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            asset_selection=sorted(assets.resolve(self.job.asset_layer.asset_graph)) if assets else None,
            raise_on_error=False,
        )
        materialised = [e.step_materialization_data.materialization for e in result.get_asset_materialization_events()]
        client = tracking_of(self.home).tracker().client
        return Outcome(
            success=result.success,
            versions={m.asset_key.to_user_string(): (m.tags or {})[DATA_VERSION] for m in materialised},
            checks={f"{e.asset_key.to_user_string()}.{e.check_name}": e for e in result.get_asset_check_evaluations()},
            model_versions=len(client.search_model_versions(f"name = '{MODEL}'")),
            mlflow_runs=len(client.search_runs([e.experiment_id for e in client.search_experiments()])),
            shards=frozenset(str(p.relative_to(self.home)) for p in self.home.glob("shards/**/*.parquet")),
        )

    def table(self, *names: str) -> pl.DataFrame:
        return pl.read_parquet(self.home.joinpath("tables", *names).with_suffix(".parquet"))


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTH_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        small_deployment.write_instance_settings(home)
        with dg.DagsterInstance.get() as instance:
            yield Deployment(home, small_deployment.pipeline_in_process(), instance)


@pytest.fixture(scope="module")
def first(deployment: Deployment) -> Outcome:
    return deployment.run("first")


@pytest.fixture(scope="module")
def again(deployment: Deployment, first: Outcome) -> Outcome:
    assert first.success
    return deployment.run("first")


@pytest.fixture(scope="module")
def other_margin(deployment: Deployment, again: Outcome) -> Outcome:
    assert again.success
    return deployment.run("first", "+key:dpo_adapter", {"preference_pairs": {"margin": 0.0}})


@pytest.fixture(scope="module")
def more_samples(deployment: Deployment, other_margin: Outcome) -> Outcome:
    assert other_margin.success
    return deployment.run("first", "raw_instructions", {"raw_instructions": {"samples": SAMPLES + 1}})


@pytest.fixture(scope="module")
def second_batch(deployment: Deployment, more_samples: Outcome) -> Outcome:
    assert more_samples.success
    return deployment.run("second", "raw_instructions", {"raw_instructions": {"samples": SECOND_SAMPLES}})


def test_every_asset_is_materialised_with_a_data_version(deployment: Deployment, first: Outcome) -> None:
    assert first.success
    graph = deployment.job.asset_layer.asset_graph
    expected = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {name for name, version in first.versions.items() if version} == expected


def test_every_check_is_evaluated_and_none_fails_with_an_error(deployment: Deployment, first: Outcome) -> None:
    graph = deployment.job.asset_layer.asset_graph
    assert set(first.checks) == {f"{k.asset_key.to_user_string()}.{k.name}" for k in graph.asset_check_keys}
    failed = {name: e.description for name, e in first.checks.items() if not e.passed}
    errors = {name for name in failed if first.checks[name].severity == dg.AssetCheckSeverity.ERROR}
    assert not errors, failed
    assert [name for name, e in first.checks.items() if not (e.description or "").endswith(".")] == []


def test_seven_adapters_are_registered_and_one_is_evaluated_for_promotion(
    deployment: Deployment, first: Outcome
) -> None:
    decision = json.loads((deployment.home / "tables/promotion_decision.json").read_text("utf-8"))
    assert first.model_versions == 7
    assert decision["outcome"] in {"promoted", "refused"}
    assert decision["clauses"]


def test_the_dataset_has_a_card_and_a_figure_here_and_in_mlflow(deployment: Deployment, first: Outcome) -> None:
    version = first.versions["sft_dataset"]
    card = (deployment.home / "cards" / "sft_dataset" / version / "README.md").read_text("utf-8")
    assert f"{deployment.table('sft_dataset').height} of {SAMPLES} rows were kept" in card
    tracker = tracking_of(deployment.home).tracker()
    (run,) = tracker.client.search_runs([tracker.experiment], "tags.dataset = 'sft_dataset'")
    assert run.data.tags["data_version"] == version
    assert {file.path for file in tracker.client.list_artifacts(run.info.run_id)} == {
        "README.md",
        "filtering_stats.png",
    }


def test_a_run_without_changes_computes_nothing(first: Outcome, again: Outcome) -> None:  # fault 26
    assert changed(first, again) == set()
    assert again.versions.keys() == first.versions.keys()
    assert (again.model_versions, again.mlflow_runs) == (first.model_versions, first.mlflow_runs)
    assert again.shards == first.shards


def changed(before: Outcome, after: Outcome) -> set[str]:
    return {name for name, version in after.versions.items() if version != before.versions[name]}


def test_a_changed_threshold_changes_only_downstream_assets(again: Outcome, other_margin: Outcome) -> None:  # fault 26
    assert {"raw_instructions", "sft_dataset", "lora_adapter", "response_candidates"} <= other_margin.versions.keys()
    assert changed(again, other_margin) == {"preference_pairs", "reference_logprobs", "dpo_adapter"}
    assert other_margin.model_versions == again.model_versions + 1


def test_more_samples_compute_only_the_missing_blocks(
    deployment: Deployment, other_margin: Outcome, more_samples: Outcome
) -> None:
    assert SAMPLES % BLOCK_ROWS == 0
    assert len(more_samples.shards - other_margin.shards) == 1
    assert other_margin.shards < more_samples.shards
    assert deployment.table("raw_instructions", "first").height == SAMPLES + 1


def test_two_batches_share_no_row_and_few_instructions(deployment: Deployment, second_batch: Outcome) -> None:
    assert second_batch.success
    first, second = (deployment.table("raw_instructions", batch) for batch in ("first", "second"))
    assert second.height == SECOND_SAMPLES
    assert set(first["row_id"]).isdisjoint(second["row_id"])
    new = set(second["instruction"]) - set(first["instruction"])
    assert len(new) >= 0.6 * second["instruction"].n_unique()


IMPORTED: Sequence[dict[str, object]] = [
    {"instruction": "Name three colours of the rainbow.", "input": "", "output": "Red, green and blue are three."},
    {"instruction": "Name three colours of the rainbow.", "input": "", "output": "Red, green and blue are three."},
    {
        "instruction": "Explain in one sentence why the sky is blue.",
        "output": "Air scatters short waves of light most.",
    },
    {"instruction": "No answer was ever given to this.", "output": ""},
]


def test_imported_rows_are_filtered_like_generated_rows(
    deployment: Deployment, second_batch: Outcome, tmp_path: Path
) -> None:
    assert second_batch.success
    file = jsonl(tmp_path / "mine.jsonl", *IMPORTED)
    import_file(ImportRequest(file), deployment.home / "imports")
    outcome = deployment.run("second", "key:imported_instructions or key:filtered_instructions")
    assert outcome.success
    kept = deployment.table("filtered_instructions").filter(batch=IMPORTED_BATCH)["instruction"].to_list()
    assert kept == [IMPORTED[0]["instruction"], IMPORTED[2]["instruction"]]
    filtered = pl.concat(
        deployment.table(name).select("row_id", "batch") for name in ("filtered_instructions", "rejected_instructions")
    )
    assert set(filtered["batch"]) == {"first", "second", IMPORTED_BATCH}
    assert filtered["row_id"].n_unique() == filtered.height


def test_a_bad_row_is_traced_recalled_and_excluded_from_training(
    deployment: Deployment, second_batch: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trace a version back to a row, recall the row, tag every version trained on it, and retrain without it."""
    assert second_batch.success
    monkeypatch.setenv("SYNTH_HOME", str(deployment.home))
    monkeypatch.setenv("DAGSTER_HOME", str(deployment.home / "dagster"))
    tracker = tracking_of(deployment.home).tracker()
    session, screen = Session(deployment.home, "cpu"), Console(file=StringIO(), width=200)
    version = find_version(session, "lora_adapter")
    manifests = session.storage.manifests()
    trained = training_rows(manifests, version)
    row = trained["row_id"].sort()[0]
    story = trace_text(session, version.version, row, None)
    assert "by lora_adapter as" in story
    assert "seed" in story

    recall(session, Request([row], "it names a person"), screen)
    tainted = {version.version for version in model_versions(tracker) if TAINTED in version.tags}
    with_row = {v.version for v in model_versions(tracker) if row in set(training_rows(manifests, v)["row_id"])}
    assert tainted == with_row
    assert len(tainted) >= 5, "LoRA, prompt tuning, and what continues the LoRA"
    refused = deployment.run("second", "key:promotion_decision", {"promotion_decision": {"version": version.version}})
    assert refused.success
    clauses = json.loads((deployment.home / "tables/promotion_decision.json").read_text("utf-8"))["clauses"]
    assert "no recalled rows" in [clause["name"] for clause in clauses if not clause["passed"]]

    again = deployment.run("second", "key:recalled_rows+ and +key:lora_adapter")
    assert again.success
    rejected = deployment.table("rejected_instructions").filter(row_id=row)
    assert rejected["reason"].to_list() == ["recalled"]
    assert row not in set(deployment.table("sft_dataset")["row_id"])
    clean = find_version(session, "lora_adapter")
    assert clean.version != version.version
    assert row not in set(training_rows(manifests, clean)["row_id"])
    assert TAINTED not in clean.tags

    recall(session, Request([row], undo=True), screen)
    assert not [version.version for version in model_versions(tracker) if TAINTED in version.tags]
