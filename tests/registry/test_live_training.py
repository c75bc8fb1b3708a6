"""The run of a training is open while it trains, survives a killed process, and never disturbs the training."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from safetensors.numpy import save_file

from synth_assets.registry import live_training
from synth_assets.registry.live_training import LiveTraining
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.retry import TrackingError
from tests.support.records import make_lora
from tests.support.tracking import tracking_of

pytestmark = pytest.mark.integration

T = TypeVar("T")
SETTINGS = {"rank": 8, "base": "base"}
POINTS = [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.5}, {"step": 3.0, "loss": 1.25}]
RECORD = make_lora(spec={"rank": 8})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> MlflowTracker:
    home = tmp_path_factory.mktemp("home")
    return tracking_of(home).tracker(batch="first")


@pytest.fixture
def tracker(shared: MlflowTracker) -> Iterator[MlflowTracker]:
    """Return a tracker without runs; the fingerprint "f1" is free again after each test."""
    from mlflow.exceptions import MlflowException

    yield shared
    for run in shared.client.search_runs([shared.experiment]):
        shared.client.delete_run(run.info.run_id)
    with suppress(MlflowException):
        shared.client.delete_registered_model("synth-instruct")
    for model in shared.client.search_logged_models([shared.experiment]):
        shared.client.delete_logged_model(model.model_id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"weight": np.ones(2, np.float32)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    return tmp_path


def live(tracker: MlflowTracker) -> LiveTraining:
    return LiveTraining(lambda: tracker, "lora_adapter", {"role": "candidate"})


def train(training: LiveTraining, error: BaseException) -> None:
    with training:
        training.started("f1", SETTINGS)
        raise error


def losses(tracker: MlflowTracker, run_id: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in tracker.client.get_metric_history(run_id, "loss")]


def test_the_run_is_open_while_the_training_runs(
    tracker: MlflowTracker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_training, "FLUSH_EVERY_S", 0.05)
    monkeypatch.setattr(live_training, "SYSTEM_EVERY_S", 0.2)
    states = random.getstate(), str(np.random.get_state())
    with live(tracker) as training:
        training.started("f1", SETTINGS)
        run = tracker.client.get_run(training.run_id)
        assert (run.info.status, run.info.run_name, run.data.params["rank"]) == ("RUNNING", "lora_adapter/first", "8")
        training.logged(POINTS[0])
        assert eventually(lambda: losses(tracker, training.run_id)) == [(1, 2.0)]
        assert eventually(lambda: system(tracker, training.run_id)) is not None
        training.logged(POINTS[1])
    assert (random.getstate(), str(np.random.get_state())) == states, "the training would draw other numbers"
    assert losses(tracker, training.run_id) == [(1, 2.0), (2, 1.5)]
    run_id, version = tracker.log_training(RECORD, folder, POINTS, {"role": "candidate"})
    assert (run_id, version) == (training.run_id, "1")
    assert losses(tracker, run_id) == [(1, 2.0), (2, 1.5), (3, 1.25)], "a step is logged once"
    run = tracker.client.get_run(run_id)
    assert (run.info.status, run.data.tags["manifest_sha256"]) == ("FINISHED", "m")
    assert len(tracker.client.search_runs([tracker.experiment])) == 1


def test_a_killed_training_continues_its_run(tracker: MlflowTracker, folder: Path) -> None:
    killed = live(tracker)
    killed.started("f1", SETTINGS)  # and no end
    again = live(tracker)
    with pytest.raises(ValueError, match="no such layer"):
        train(again, ValueError("no such layer"))
    assert again.run_id == killed.run_id
    run = tracker.client.get_run(killed.run_id)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "ValueError: no such layer")
    with live(tracker) as resumed:
        resumed.started("f1", SETTINGS)
        assert tracker.client.get_run(resumed.run_id).info.status == "RUNNING"
        resumed.failed("loss is nan")
    assert resumed.run_id == killed.run_id
    assert tracker.client.get_run(resumed.run_id).data.tags["failure"] == "loss is nan"
    killed.__exit__(None, None, None)
    assert tracker.log_training(RECORD, folder, POINTS, {})[0] == killed.run_id


def test_an_interrupted_training_is_marked_as_killed(tracker: MlflowTracker) -> None:
    training = live(tracker)
    with pytest.raises(KeyboardInterrupt):
        train(training, KeyboardInterrupt())
    assert tracker.client.get_run(training.run_id).info.status == "KILLED"


def test_the_same_weights_again_are_no_new_version(tracker: MlflowTracker, folder: Path) -> None:
    first = tracker.log_training(RECORD, folder, POINTS, {})
    with live(tracker) as training:
        training.started("f1", SETTINGS)
    assert training.run_id != first[0]
    assert tracker.log_training(RECORD, folder, POINTS, {}) == first
    run = tracker.client.get_run(training.run_id)
    assert (run.info.status, run.data.tags["same_weights_as"]) == ("FINISHED", first[0])


def test_a_server_that_is_down_does_not_stop_the_training(caplog: pytest.LogCaptureFixture) -> None:
    def connect() -> MlflowTracker:
        raise TrackingError("MLflow at http://127.0.0.1:1 failed 5 times")

    with LiveTraining(connect, "lora_adapter", {}) as training:
        training.started("f1", SETTINGS)
        training.logged(POINTS[0])
        training.failed("diverged")
    assert [record.message for record in caplog.records] == [
        "lora_adapter: MLflow shows no progress of this training: MLflow at http://127.0.0.1:1 failed 5 times. The "
        "training goes on and is logged when it is complete"
    ]


class LosingServer:
    """A client whose server is lost after the run was opened."""

    def __init__(self, client: object) -> None:
        self._client, self.calls, self.is_lost = client, 0, False

    def __getattr__(self, name: str) -> object:
        from mlflow.exceptions import MlflowException

        if self.is_lost:
            self.calls += 1
            raise MlflowException("connection refused")
        return getattr(self._client, name)


def test_a_server_that_is_lost_is_given_up(
    tracker: MlflowTracker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_training, "FLUSH_EVERY_S", 0.05)
    client = LosingServer(tracker.client)
    with live(replace(tracker, client=client)) as training:
        training.started("f1", SETTINGS)
        client.is_lost = True
        training.logged(POINTS[0])
        assert eventually(lambda: client.calls or None) == 1
        training.logged(POINTS[1])
    assert client.calls == 1
    assert sum("shows no progress" in record.message for record in caplog.records) == 1


def system(tracker: MlflowTracker, run_id: str) -> float | None:
    return tracker.client.get_run(run_id).data.metrics.get("system/cpu_utilization_percentage")


def eventually(read: Callable[[], T | None]) -> T | None:
    """Return the first result that is neither None nor empty, within 60 seconds."""
    deadline = time.monotonic() + 60
    while not (result := read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return result
