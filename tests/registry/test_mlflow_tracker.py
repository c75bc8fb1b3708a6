"""Runs, versions, scores and aliases in a real MLflow database; its failures injected for real."""

import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.registry import retry
from synth_assets.registry.mlflow_tracker import MODEL, MlflowTracker
from synth_assets.registry.model_versions import model_version, model_versions, restore_adapter
from synth_assets.registry.retry import TrackingError
from synth_assets.registry.version_tags import SHOWN_TAGS
from synth_assets.schemas.records import AdapterRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.storage.lineage import LineageError
from tests.support.tracking import CURVE, TAGS, adapter, register, tracking_of

pytestmark = pytest.mark.integration


def versions(tracker: MlflowTracker) -> list[str]:
    found = tracker.client.search_model_versions(f"name = '{MODEL}'")
    return sorted(str(version.version) for version in found)


def test_training_creates_a_run_and_a_version(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker(tier="cpu")
    record = adapter(tmp_path / "a")
    run_id, version = tracker.log_training(record, tmp_path / "a", CURVE, TAGS)
    run = tracker.client.get_run(run_id)
    assert run.info.run_name == "lora_adapter/2026-W47"
    assert run.info.status == "FINISHED"
    assert run.data.params["rank"] == "8"
    assert [(m.step, m.value) for m in tracker.client.get_metric_history(run_id, "loss")] == [(1, 2.0), (2, 1.5)]
    assert run.data.metrics["system/process_memory_megabytes"] > 1
    assert {d.dataset.name: d.dataset.digest for d in run.inputs.dataset_inputs} == dict(record.data_versions)
    assert set(tracker.registered(version).tags) == {"asset", "role", "batch"}, "the rest is on the logged model"
    tags = tracker.version_tags(version)
    assert {"tier", "method", "role", "fingerprint", "data_version", "dagster.run_id", "manifest_sha256"} <= tags.keys()
    assert model_version(tracker, version).data_versions == record.data_versions
    assert tags["data_versions"] == fingerprint(dict(record.data_versions))
    assert tracker.find_version(record.fingerprint) == version == "1"
    assert not (Path.cwd() / "mlruns").exists()


def test_versions_have_their_data_versions(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker()
    record = adapter(tmp_path / "a")
    run_id, version = tracker.log_training(record, tmp_path / "a", CURVE, TAGS)
    tracker.set_alias("champion", version, {})
    (found,) = model_versions(tracker)
    assert (found.version, found.asset, found.aliases) == ("1", "lora_adapter", ("champion",))
    assert found == model_version(tracker, "1")
    with pytest.raises(KeyError, match="no version 2"):
        model_version(tracker, "2")
    tracker.client.log_text(run_id, "{}", "data_versions.json")
    with pytest.raises(LineageError, match="was changed since"):
        model_versions(tracker)
    (home / "mlartifacts" / run_id / "artifacts" / "data_versions.json").unlink()
    with pytest.raises((LineageError, TrackingError), match=r"data_versions\.json"):
        model_version(tracker, "1")


class CountingClient:
    """A client that counts the calls of each method."""

    def __init__(self, client: object) -> None:
        self._client, self.calls = client, Counter[str]()

    def __getattr__(self, name: str) -> object:
        self.calls[name] += 1
        return getattr(self._client, name)


def test_a_version_is_read_once(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker()
    _, version = tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)
    client = CountingClient(tracker.client)
    counted = replace(tracker, client=client)
    assert model_versions(counted) == [model_version(counted, version)]
    assert (client.calls["search_model_versions"], client.calls["get_model_version"]) == (1, 1)
    with pytest.raises(LineageError, match="no manifest"):
        restore_adapter(counted, version, tmp_path / "restored")
    assert client.calls["get_model_version"] == 2


def test_a_version_shows_at_most_six_tags(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker()
    _, version = tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)
    tracker.set_alias("champion", version, {"decision": "promoted", "champion.moved_at": "now", "decision.run_id": "r"})
    tracker.tag_version(version, {"tainted": "1 recalled row", "approved_by": "ada", "score.qa.test.strict": "{}"})
    assert set(tracker.registered(version).tags) == set(SHOWN_TAGS)
    tags = tracker.version_tags(version)
    assert (tags["champion.moved_at"], tags["score.qa.test.strict"], tags["approved_by"]) == ("now", "{}", "ada")
    assert tracker.versions() == {version: tags}
    tracker.remove_tag(version, "champion.moved_at")
    assert "champion.moved_at" not in tracker.version_tags(version)


def test_tags_of_an_earlier_release_are_read_and_updated_on_the_version(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker()
    record = adapter(tmp_path / "a")
    _, version = tracker.log_training(record, tmp_path / "a", CURVE, TAGS)
    for name, value in tracker.version_tags(version).items():  # all of them were on the version
        tracker.client.set_model_version_tag(MODEL, version, name, value)
    tracker.client.set_model_version_tag(MODEL, version, "champion.moved_at", "then")
    tracker.tag_version(version, {"champion.moved_at": "now"})
    assert tracker.version_tags(version)["champion.moved_at"] == "now"
    assert tracker.find_version(record.fingerprint) == version
    assert [each.version for each in model_versions(tracker)] == [version]
    by_hand = tracker.client.create_model_version(MODEL, source=(tmp_path / "a").as_uri())
    tracker.tag_version(str(by_hand.version), {"champion.moved_at": "later"})
    assert tracker.version_tags(str(by_hand.version)) == {"champion.moved_at": "later"}


def test_remove_tag(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker()
    _, version = tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)
    tracker.tag_version(version, {"tainted": "1 recalled row"})
    tracker.remove_tag(version, "tainted")
    tracker.remove_tag(version, "tainted")
    assert "tainted" not in tracker.version_tags(version)


def test_logging_an_adapter_twice_returns_the_same_version(home: Path, tmp_path: Path) -> None:
    tracker = tracking_of(home).tracker()
    record = adapter(tmp_path / "a")
    first = tracker.log_training(record, tmp_path / "a", CURVE, TAGS)
    assert tracker.log_training(record, tmp_path / "a", CURVE, {**TAGS, "dagster.run_id": "run-2"}) == first
    retrained = adapter(tmp_path / "a", weight=2.0)
    again = tracker.log_training(replace(retrained, fingerprint=record.fingerprint), tmp_path / "a", CURVE, TAGS)
    assert again[1] == "2", "other weights under the same recipe are another version"
    with pytest.raises(ValueError, match="failed to train"):
        tracker.log_training(replace(record, failure="NaN loss"), tmp_path / "a", [], {})


def at_once(*jobs: tuple[Callable[..., None], tuple[object, ...]]) -> list[int | None]:
    """Exit codes of the jobs, each in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=job, args=arguments) for job, arguments in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    return [process.exitcode for process in processes]


def test_three_first_processes_at_once(tmp_path: Path) -> None:  # faults 20, 22
    home = tmp_path / "new"
    same = tmp_path / "same"
    jobs = [(register, (home, same, 1.0)), (register, (home, same, 1.0)), (register, (home, tmp_path / "b", 2.0))]
    adapter(same)
    assert at_once(*jobs) == [0, 0, 0]
    tracker = tracking_of(home).tracker()
    assert versions(tracker) == ["1", "2"]
    assert len(tracker.client.search_runs([tracker.experiment])) == 2


LOST_BEFORE = ["log_batch", "log_inputs", "set_terminated", "finalize_logged_model", "create_model_version"]


@pytest.mark.parametrize("lost", LOST_BEFORE)
def test_lost_between_log_and_register(home: Path, tmp_path: Path, lost: str) -> None:  # fault 21
    tracker = tracking_of(home).tracker()
    record = adapter(tmp_path / "a")
    with pytest.raises(SystemExit):
        replace(tracker, client=Ending(tracker.client, lost, sys.exit)).log_training(
            record, tmp_path / "a", CURVE, TAGS
        )
    registered_once(tracker, record, tmp_path / "a")


def test_killed_between_log_and_register(home: Path, tmp_path: Path) -> None:  # fault 21
    record = adapter(tmp_path / "a")
    assert at_once((killed, (home, tmp_path / "a"))) == [-signal.SIGKILL]
    tracker = tracking_of(home).tracker()
    assert tracker.find_version(record.fingerprint) is None
    registered_once(tracker, record, tmp_path / "a")


def registered_once(tracker: MlflowTracker, record: AdapterRecord, folder: Path) -> None:
    run_id, version = tracker.log_training(record, folder, CURVE, TAGS)
    runs = tracker.client.search_runs([tracker.experiment])
    assert [run.info.run_id for run in runs] == [run_id]
    assert (runs[0].info.status, version) == ("FINISHED", "1")
    assert len(tracker.client.get_metric_history(run_id, "loss")) == 2
    assert len(tracker.client.search_logged_models([tracker.experiment])) == 1


def killed(home: Path, folder: Path) -> None:
    tracker = tracking_of(home).tracker()
    ending = Ending(tracker.client, "create_model_version", lambda: os.kill(os.getpid(), signal.SIGKILL))
    replace(tracker, client=ending).log_training(adapter(folder), folder, CURVE, TAGS)


class Ending:
    """A client whose process ends right before one call."""

    def __init__(self, client: object, at: str, end: Callable[[], object]) -> None:
        self._client, self._at, self._end = client, at, end

    def __getattr__(self, name: str) -> object:
        if name == self._at:
            self._end()
        return getattr(self._client, name)


class FailingServer:
    """A real HTTP server that counts requests and answers 500 to the first `failures` of them."""

    def __init__(self, failures: int, pause_s: float = 0.0) -> None:
        outer = self
        self.requests = 0

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.requests += 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(pause_s)
                failed = outer.requests <= failures
                body = b"broken" if failed else b"{}"
                self.send_response(500 if failed else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "FailingServer":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RETRY_AFTER_S", (0.01, 0.02, 0.04))


@pytest.mark.usefixtures("impatient")
def test_server_errors_are_retried(home: Path, tmp_path: Path) -> None:  # fault 21
    record = adapter(tmp_path / "a")
    with FailingServer(failures=2) as server:
        tracker = remote(home, server.url)
        assert tracker.alias("champion") is None
        assert server.requests == 3
    with FailingServer(failures=10**6) as server, pytest.raises(TrackingError) as caught:
        remote(home, server.url).log_training(record, tmp_path / "a", CURVE, TAGS)
    assert server.requests == 4
    assert f"The adapter is kept in {tmp_path / 'a'}" in str(caught.value)
    assert "it only uploads" in str(caught.value)
    with pytest.raises(TrackingError, match="failed 4 times"):
        remote(home, server.url).alias("champion")
    with FailingServer(failures=10**6) as server, pytest.raises(TrackingError, match=server.url):
        MlflowTracking(home=SynthHome(folder=str(home)), tracking_uri=server.url).tracker()


def remote(home: Path, url: str) -> MlflowTracker:
    served = MlflowTracking(home=SynthHome(folder=str(home)), tracking_uri=url)
    return MlflowTracker(served.client()(), "1", served.lock, {})


def test_locked_database_is_waited_for(home: Path, tmp_path: Path) -> None:  # fault 22
    tracker = tracking_of(home).tracker()
    writer = sqlite3.connect(home / "mlflow.db", check_same_thread=False, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    threading.Timer(5.0, lambda: writer.execute("COMMIT")).start()
    started = time.monotonic()
    assert tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)[1] == "1"
    assert time.monotonic() - started >= 4.5
    writer.close()
