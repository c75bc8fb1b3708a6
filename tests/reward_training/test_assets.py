"""The job `reward` on the embedded models, from stored pairs to a reward model that the deployment uses."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from resources.reward import RewardModels
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.cli.reward import reward_text
from synth_assets.cli.session import Session
from synth_assets.schemas.serialization import from_json, to_json
from synth_assets.schemas.tables import PAIRS, RECALLS
from synth_assets.stages.reward_training.accuracy import TrainedReward
from tests.support import small_deployment

pytestmark = pytest.mark.integration

ASSET = "trained_reward_model"
COLOURS = ("red", "blue", "green", "black", "white")
QUICK = {"learning_rate": 5e-3, "epochs": 4.0, "batch_size": 16}
RECALLED = "r5"


@dataclass(frozen=True)
class Deployment:
    home: Path
    job: dg.JobDefinition
    instance: dg.DagsterInstance

    def run(self, *, may_fail: bool = False, **config: object) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(
            instance=self.instance,
            run_config={
                "ops": {ASSET: {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            raise_on_error=not may_fail,
        )

    def put(self, pairs: pl.DataFrame) -> None:
        pairs.write_parquet(self.home / "tables" / "filtered_preferences.parquet")

    @property
    def record(self) -> TrainedReward:
        return from_json(TrainedReward, (self.home / "tables" / f"{ASSET}.json").read_text("utf-8"))


def planted(pairs: int, *, shuffled: bool = False) -> pl.DataFrame:
    """Pairs of equal length, two to a group: the chosen answer is polite, or every second one if labels are shuffled.

    The pairs of a group have opposite labels if shuffled.
    """
    numbers = range(pairs)
    answers = [f"The ball of number {i} is {COLOURS[i % 5]}" for i in numbers]
    polite, rude = ([f"{answer}, {end}." for answer in answers] for end in ("thanks", "stupid"))
    swapped = [shuffled and i % 2 == 1 for i in numbers]
    columns = {
        "pair_id": [f"p{i:03}" for i in numbers],
        "row_id": [f"r{i}" for i in numbers],
        "group": [f"g{i // 2}" for i in numbers],
        "history": [[] for _ in numbers],
        "instruction": [f"What colour has ball {i // 2}?" for i in numbers],
        "chosen": [b if swap else a for a, b, swap in zip(polite, rude, swapped, strict=True)],
        "rejected": [a if swap else b for a, b, swap in zip(polite, rude, swapped, strict=True)],
    }
    return pl.DataFrame({name: columns.get(name, [None] * pairs) for name in PAIRS}, schema=PAIRS)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("reward")
    tables = home / "tables"
    tables.mkdir()
    recalls = {"row_id": [RECALLED], "reason": ["wrong"], "by": ["a person"], "at": ["2026-11-28T00:00:00+00:00"]}
    pl.DataFrame(recalls, schema=RECALLS).write_parquet(tables / "recalled_rows.parquet")
    base = Inference(hardware=Hardware(tier="cpu")).resolve("base")
    (tables / "base_model.json").write_text(to_json(base), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTH_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        small_deployment.write_instance_settings(home)
        with dg.DagsterInstance.get() as instance:
            definitions = small_deployment.small_definitions(dg.in_process_executor)
            yield Deployment(home, definitions.resolve_job_def("reward"), instance)


@pytest.fixture(scope="module")
def first(deployment: Deployment) -> dg.ExecuteInProcessResult:
    deployment.put(planted(100))
    return deployment.run(**QUICK)


@pytest.fixture(scope="module")
def record(deployment: Deployment, first: dg.ExecuteInProcessResult) -> TrainedReward:
    return deployment.record


def test_planted_pairs_are_learned_and_every_check_passes(
    first: dg.ExecuteInProcessResult, record: TrainedReward
) -> None:
    assert record.held_out.value > 0.9
    assert (record.held_out.n, record.held_out.groups, record.train.n) == (20, 10, 79)  # one row was recalled
    assert (record.longer.value, record.longer.ties) == (0.5, 20)
    assert record.current_model == "embedded:reward"
    assert record.current is not None
    assert record.current.n == 20
    evaluations = first.get_asset_check_evaluations()
    assert len(evaluations) == 6
    assert [e.check_name for e in evaluations if not e.passed] == []


def test_metadata_and_command_say_how_to_use_it(
    deployment: Deployment, first: dg.ExecuteInProcessResult, record: TrainedReward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(deployment.home / "dagster"))
    [made] = first.asset_materializations_for_node(ASSET)
    line = f"export SYNTH_REWARD=home:reward_models/{record.fingerprint}"
    assert made.metadata["use"].value == line
    text = reward_text(Session(deployment.home, "cpu"))
    assert line in text
    assert f"held-out accuracy    {record.held_out.text()}" in text


def test_the_deployment_can_use_it(
    deployment: Deployment, record: TrainedReward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_HOME", str(deployment.home))
    hardware = Hardware(tier="cpu", reward=record.location)
    model = RewardModels(hardware=hardware).load(Inference(hardware=hardware).resolve("reward"))
    pairs = pl.read_parquet(deployment.home / record.pairs).join(planted(100), on="pair_id")
    chosen, rejected = (model.score(list(pairs.select("instruction", s).iter_rows())) for s in ("chosen", "rejected"))
    assert (chosen - rejected).tolist() == pytest.approx(pairs["trained"].to_list(), abs=1e-4)


def test_mlflow_has_the_accuracy_and_the_model(deployment: Deployment, record: TrainedReward) -> None:
    client = MlflowTracking(home=SynthHome(folder=str(deployment.home))).tracker().client
    run = client.get_run(record.mlflow_run_id)
    assert run.data.metrics["held_out_accuracy"] == record.held_out.value
    assert {"config.json", "model.safetensors"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    assert client.search_registered_models() == []


def test_a_second_run_reuses_the_model(deployment: Deployment, record: TrainedReward) -> None:
    again = deployment.run(**QUICK)
    [made] = again.asset_materializations_for_node(ASSET)
    assert made.metadata["trained_before"].value is True
    assert deployment.record == record


def test_shuffled_labels_fail_the_checks_of_the_accuracy(deployment: Deployment, record: TrainedReward) -> None:
    deployment.put(planted(100, shuffled=True))
    result = deployment.run(**QUICK)
    assert result.success
    red = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
    assert red == {"held_out_accuracy_beats_chance", "reward_beats_longer_is_better"}
    assert deployment.record.fingerprint != record.fingerprint


def test_too_few_pairs_fail_with_the_remedy(deployment: Deployment) -> None:
    deployment.put(planted(40))
    result = deployment.run(may_fail=True, **QUICK)
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    assert error is not None
    assert "at least 50 pairs, got 39" in error.cause.message if error.cause else error.message
    assert "synth import FILE --format preference" in str(error)
