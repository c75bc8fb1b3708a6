"""Three tiny variants through Dagster on the embedded models, from stored tables to the report."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.inference import Hardware, Inference
from resources.tracking import STUDY_EXPERIMENT
from synth_assets.cli.session import Session
from synth_assets.cli.study import LAUNCH, current_basis, failure_reason, is_complete, outcome_of, study_text
from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import SUITES
from synth_assets.schemas.serialization import from_json, to_json
from synth_assets.schemas.tables import SFT_ROWS
from synth_assets.stages.efficiency import variants
from synth_assets.stages.efficiency.frontier import Frontier
from synth_assets.stages.efficiency.variants import Variant
from tests.support import small_deployment
from tests.support.tracking import tracking_of

pytestmark = pytest.mark.integration

PLAIN, OTHER_RANK, QUANTISED = "r8-all-none-s42", "r4-all-none-s42", "r8-all-nf4-s42"
MISSING_LIBRARY = "bitsandbytes"
LAUNCHED = "of one study"


@dataclass(frozen=True)
class Deployment:
    home: Path
    job: dg.JobDefinition
    instance: dg.DagsterInstance

    def run(self, *assets: str, partition: str | None = None, **config: dict[str, object]) -> dg.ExecuteInProcessResult:
        """Of some assets, tagged as `synth study` does."""
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return self.job.execute_in_process(
            instance=self.instance,
            partition_key=partition,
            tags={LAUNCH: LAUNCHED},
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            run_config={"ops": {name: {"config": fields} for name, fields in config.items()}, **quiet},
            raise_on_error=False,
        )

    def variant(self, name: str) -> Variant:
        return from_json(Variant, (self.home / "tables" / "lora_variant" / f"{name}.json").read_text("utf-8"))

    @property
    def study(self) -> Frontier:
        return from_json(Frontier, (self.home / "tables" / "efficiency_frontier.json").read_text("utf-8"))


def rows() -> pl.DataFrame:
    """40 rows that the embedded tokenizer knows, the last eight for validation."""
    numbers = range(40)
    columns = {
        "row_id": [f"r{i}" for i in numbers],
        "history": [[] for _ in numbers],
        "instruction": [f"Which day comes after {day}?" for day in ("Monday", "Tuesday", "Friday", "Sunday") * 10],
        "response": [f"It is {i}." for i in numbers],
        "group": [f"g{i}" for i in numbers],
        "split": ["train"] * 32 + ["validation"] * 8,
    }
    return pl.DataFrame({name: columns.get(name, [None] * 40) for name in SFT_ROWS}, schema=SFT_ROWS)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("study")
    tables = home / "tables"
    tables.mkdir()
    rows().write_parquet(tables / "sft_dataset.parquet")
    item_table([SUITES["world_instructions"]]).write_parquet(tables / "benchmark_items.parquet")
    base = Inference(hardware=Hardware(tier="cpu")).resolve("base")
    (tables / "base_model.json").write_text(to_json(base), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTH_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        small_deployment.write_instance_settings(home)
        with dg.DagsterInstance.get() as instance:
            yield Deployment(home, small_deployment.study_in_process(), instance)


@pytest.fixture(scope="module")
def first(deployment: Deployment) -> dg.ExecuteInProcessResult:
    return deployment.run("lora_variant", partition=PLAIN)


@pytest.fixture(scope="module")
def study(deployment: Deployment, first: dg.ExecuteInProcessResult) -> Frontier:
    """Another rank, a cell that this machine cannot run, then the last pass."""
    assert first.success
    assert deployment.run("lora_variant", partition=OTHER_RANK).success
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "find_spec", lambda _: None)
        assert deployment.run("lora_variant", partition=QUANTISED).success
    wanted = {"seeds": 1, "ranks": [4, 8]}
    assert deployment.run("variant_latencies", "efficiency_frontier", efficiency_frontier=wanted).success
    return deployment.study


def test_a_variant_is_trained_and_measured(deployment: Deployment, first: dg.ExecuteInProcessResult) -> None:
    variant = deployment.variant(PLAIN)
    assert variant.measured
    assert (variant.rows, variant.numbers["items"]) == ({"train": 32, "validation": 4, "test": 4}, 8.0)
    # four layers of 4 projections 128 -> 128 and 3 between 128 and 384, rank 8
    assert variant.numbers["trainable_parameters"] == 8 * 4 * (4 * (128 + 128) + 3 * (128 + 384))
    assert variant.numbers["test_loss"] > 0
    files = (deployment.home / variant.path).glob("*.safetensors")
    assert variant.numbers["adapter_bytes"] == sum(path.stat().st_size for path in files)
    red = {e.check_name for e in first.get_asset_check_evaluations() if not e.passed}
    assert red <= {"variant_loss_fell"}  # two steps show no trend


def test_a_variant_is_found_in_mlflow_and_is_no_version(deployment: Deployment, study: Frontier) -> None:
    tracking = tracking_of(deployment.home)
    client = tracking.tracker().client
    experiment = client.get_experiment_by_name(STUDY_EXPERIMENT)
    assert experiment is not None
    wanted = "tags.cell = 'r4-all-none' and tags.rank = '4' and tags.seed = '42' and tags.quantisation = 'none'"
    [run] = client.search_runs([experiment.experiment_id], wanted)
    assert run.info.run_id == study.runs[OTHER_RANK]
    variant = deployment.variant(OTHER_RANK)
    assert run.data.metrics["test_loss"] == pytest.approx(variant.numbers["test_loss"])
    assert run.data.metrics["score"] == variant.numbers["score"]
    assert client.search_registered_models() == []


def test_the_same_variant_again_trains_and_measures_nothing(deployment: Deployment, study: Frontier) -> None:
    before = deployment.variant(PLAIN)
    shards = {path.name for path in deployment.home.glob("shards/**/*.parquet")}
    again = deployment.run("lora_variant", partition=PLAIN)
    [made] = again.asset_materializations_for_node("lora_variant")
    assert made.metadata["trained_before"].value is True
    assert deployment.variant(PLAIN) == before
    assert {path.name for path in deployment.home.glob("shards/**/*.parquet")} == shards


def test_a_variant_that_cannot_run_is_reported_and_left_out(deployment: Deployment, study: Frontier) -> None:
    variant = deployment.variant(QUANTISED)
    assert MISSING_LIBRARY in variant.not_run
    assert (variant.numbers, variant.path) == ({}, "")
    assert study.missing[QUANTISED].startswith("not run: nf4 needs bitsandbytes")
    assert study.cells == ["r8-all-none", "r4-all-none"]


def test_latencies_are_of_the_measured_cells(deployment: Deployment, study: Frontier) -> None:
    timed = pl.read_parquet(deployment.home / "tables" / "variant_latencies.parquet")
    assert timed["variant"].to_list() == [PLAIN, OTHER_RANK]
    assert timed["prompts"].to_list() == [4, 4]


def test_the_command_ends_with_the_report_in_the_home(
    deployment: Deployment, study: Frontier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(deployment.home / "dagster"))
    [folder] = (deployment.home / "reports").iterdir()
    assert json.loads((folder / "study.json").read_text("utf-8"))["findings"] == study.findings
    text = study_text(Session(deployment.home, "cpu"))
    assert study.findings[0] in text
    assert str(folder / "report.html") in text


def test_the_command_finds_variants_of_the_present_data(deployment: Deployment, study: Frontier) -> None:
    session = Session(deployment.home, "cpu")
    here = current_basis(session)  # of the cpu tier's own settings: these variants are of the small one's
    basis = deployment.variant(PLAIN).basis
    assert here != basis
    assert is_complete(session, PLAIN, basis)
    assert not is_complete(session, PLAIN, here)
    assert not is_complete(session, QUANTISED, basis)
    assert not is_complete(session, "r64-all-none-s42", basis)


def test_the_command_prints_results_and_failures(deployment: Deployment, study: Frontier) -> None:
    session = Session(deployment.home, "cpu")
    session.__dict__["instance"] = deployment.instance  # the environment of this test names another
    assert outcome_of(session, PLAIN).startswith("test loss ")
    assert outcome_of(session, QUANTISED).startswith("not run: nf4 needs bitsandbytes")
    name, table = "r16-all-none-s42", deployment.home / "tables" / "sft_dataset.parquet"
    table.rename(table.with_suffix(".away"))
    try:
        assert not deployment.run("lora_variant", partition=name).success
    finally:
        table.with_suffix(".away").rename(table)
    assert "sft_dataset was never materialised" in failure_reason(session, name, LAUNCHED, 1)
    assert failure_reason(session, name, LAUNCHED, -9) == "the process was killed by signal 9"
    assert outcome_of(session, name) == "failed: not stored"
