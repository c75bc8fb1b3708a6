"""Runs, versions, scores and aliases in a real MLflow database; its failures injected for real."""

import json
import multiprocessing
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.registry import retry
from synth_assets.registry.metric_verification import verify_metric
from synth_assets.registry.mlflow_tracker import MODEL, MlflowTracker
from synth_assets.registry.model_versions import model_version, model_versions
from synth_assets.registry.retry import TrackingError
from synth_assets.registry.version_tags import SHOWN_TAGS
from synth_assets.schemas.records import AdapterRecord, Metric
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import ITEM_SCORES
from synth_assets.stats.intervals import estimate
from synth_assets.storage.lineage import LineageError
from synth_assets.storage.manifests import content_hash

pytestmark = pytest.mark.integration

CURVE = [{"step": 1, "loss": 2.0, "learning_rate": 1e-4}, {"step": 2, "loss": 1.5, "learning_rate": 5e-5}]
TAGS = {"tier": "cpu", "batch": "2026-W47", "dagster.run_id": "run-1"}


def adapter(folder: Path, name: str = "lora_adapter", weight: float = 1.0) -> AdapterRecord:
    """A record and a complete little adapter in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.full((2, 2), weight, np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    return AdapterRecord(
        name=name,
        method="lora",
        role="candidate",
        fingerprint=fingerprint(name, weight),
        path=f"adapters/{folder.name}",
        manifest_sha256="m",
        model_version="",
        mlflow_run_id="",
        base="base",
        base_revision="r1",
        spec={"rank": 8, "learning_rate": 2e-4},
        data_versions={"sft_dataset": "abc", "raw_instructions[2026-W47]": "def"},
        trainable_parameters=10,
        total_parameters=100,
        peak_memory_bytes=1000,
        peak_memory_kind="derived",
        tokens_per_s=12.5,
        seconds=3.0,
        cost_usd=0.0,
        final_loss=1.5,
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised database; making one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("database")
    resource(folder).initialise()
    return folder / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, database: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    copy = sqlite3.connect(folder / "mlflow.db")
    original = sqlite3.connect(database)
    original.backup(copy)
    copy.execute("UPDATE experiments SET artifact_location = ?", [(folder / "mlartifacts").as_uri()])
    copy.commit()
    copy.close()
    original.close()
    return folder


def resource(home: Path) -> MlflowTracking:
    return MlflowTracking(home=SynthHome(folder=str(home)))


def versions(tracker: MlflowTracker) -> list[str]:
    found = tracker.client.search_model_versions(f"name = '{MODEL}'")
    return sorted(str(version.version) for version in found)


def test_training_creates_a_run_and_a_version(home: Path, tmp_path: Path) -> None:
    tracker = resource(home).tracker(tier="cpu")
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
    tracker = resource(home).tracker()
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


def test_a_version_shows_at_most_six_tags(home: Path, tmp_path: Path) -> None:
    tracker = resource(home).tracker()
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
    tracker = resource(home).tracker()
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


def test_answers_are_a_table_of_the_evaluation_run(home: Path, tmp_path: Path) -> None:
    tracker = resource(home).tracker()
    run_id = tracker.log_scores([metric()], ITEMS, {})
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(5)], "prompt": [f"question {n}" for n in range(5)]})
    for _ in range(2):
        tracker.log_answers(run_id, ITEMS, items)
    table = json.loads(Path(tracker.client.download_artifacts(run_id, "answers.json", str(tmp_path))).read_text())
    assert table["columns"][:4] == ["suite", "item_id", "prompt", "model"]
    assert len(table["data"]) == 10
    assert table["data"][0] == ["qa", "i0", "question 0", "lora_adapter", "r", "strict", 1.0, "stop"]
    tables = json.loads(tracker.client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert tables == [{"path": "answers.json", "type": "table"}]


def test_remove_tag(home: Path, tmp_path: Path) -> None:
    tracker = resource(home).tracker()
    _, version = tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)
    tracker.tag_version(version, {"tainted": "1 recalled row"})
    tracker.remove_tag(version, "tainted")
    tracker.remove_tag(version, "tainted")
    assert "tainted" not in tracker.version_tags(version)


def test_logging_an_adapter_twice_returns_the_same_version(home: Path, tmp_path: Path) -> None:
    tracker = resource(home).tracker()
    record = adapter(tmp_path / "a")
    first = tracker.log_training(record, tmp_path / "a", CURVE, TAGS)
    assert tracker.log_training(record, tmp_path / "a", CURVE, {**TAGS, "dagster.run_id": "run-2"}) == first
    retrained = adapter(tmp_path / "a", weight=2.0)
    again = tracker.log_training(replace(retrained, fingerprint=record.fingerprint), tmp_path / "a", CURVE, TAGS)
    assert again[1] == "2", "other weights under the same recipe are another version"
    with pytest.raises(ValueError, match="failed to train"):
        tracker.log_training(replace(record, failure="NaN loss"), tmp_path / "a", [], {})


def register(home: Path, folder: Path, weight: float) -> None:
    record = adapter(folder, weight=weight)
    resource(home).tracker().log_training(record, folder, CURVE, TAGS)


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
    tracker = resource(home).tracker()
    assert versions(tracker) == ["1", "2"]
    assert len(tracker.client.search_runs([tracker.experiment])) == 2


LOST_BEFORE = ["log_batch", "log_inputs", "set_terminated", "finalize_logged_model", "create_model_version"]


@pytest.mark.parametrize("lost", LOST_BEFORE)
def test_lost_between_log_and_register(home: Path, tmp_path: Path, lost: str) -> None:  # fault 21
    tracker = resource(home).tracker()
    record = adapter(tmp_path / "a")
    with pytest.raises(SystemExit):
        replace(tracker, client=Ending(tracker.client, lost, sys.exit)).log_training(
            record, tmp_path / "a", CURVE, TAGS
        )
    registered_once(tracker, record, tmp_path / "a")


def test_killed_between_log_and_register(home: Path, tmp_path: Path) -> None:  # fault 21
    record = adapter(tmp_path / "a")
    assert at_once((killed, (home, tmp_path / "a"))) == [-signal.SIGKILL]
    tracker = resource(home).tracker()
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
    tracker = resource(home).tracker()
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
    tracker = resource(home).tracker()
    writer = sqlite3.connect(home / "mlflow.db", check_same_thread=False, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    threading.Timer(5.0, lambda: writer.execute("COMMIT")).start()
    started = time.monotonic()
    assert tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)[1] == "1"
    assert time.monotonic() - started >= 4.5
    writer.close()


ITEMS = pl.DataFrame(
    [
        ("lora_adapter", "f", "qa", "test", f"i{n}", f"c{n}", "strict", score, "r", "stop")
        for n, score in enumerate([1.0, 1.0, 1.0, 0.0, None])
    ]
    + [("lora_adapter", "f", "qa", "test", f"i{n}", f"c{n}", "partial", n / 4, "r", "stop") for n in range(5)],
    schema=ITEM_SCORES,
    orient="row",
)


def metric(name: str = "strict", items: pl.DataFrame = ITEMS) -> Metric:
    mine = items.filter(pl.col("metric") == name)
    found = estimate(mine["score"].to_list(), mine["cluster"].to_list())
    return Metric(
        model="lora_adapter",
        suite="qa",
        split="test",
        metric=name,
        value=found.value,
        n=found.n,
        ci_low=found.low,
        ci_high=found.high,
        interval=found.method,
        shots=0,
        harness="verifier",
        data_hash="d",
        items_sha256=content_hash(items),
        mlflow_run_id="",
    )


def test_scores_are_attached_once(home: Path, tmp_path: Path) -> None:
    tracker = resource(home).tracker(batch="2026-W47")
    _, version = tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)
    claims = [metric(), metric("partial")]
    assert (claims[0].value, claims[0].n) == (0.75, 4)
    assert tracker.scores_run(content_hash(ITEMS)) is None
    run_id = tracker.log_scores(claims, ITEMS, {"lora_adapter": version})
    assert tracker.log_scores(claims, ITEMS, {"lora_adapter": version}) == run_id
    assert tracker.scores_run(content_hash(ITEMS)) == run_id
    attached = json.loads(tracker.version_tags(version)["score.qa.test.strict"])
    assert (attached["value"], attached["n"], attached["run_id"]) == (0.75, 4, run_id)
    run = tracker.client.get_run(run_id)
    assert run.info.run_name == "benchmark_scores/2026-W47"
    assert run.data.metrics == {"models": 1, "items": 5}
    stored = tracker.client.download_artifacts(run_id, "items.parquet", str(tmp_path))
    assert content_hash(pl.read_parquet(stored)) == content_hash(ITEMS)


def test_scores_have_the_same_name_on_every_model(home: Path, tmp_path: Path) -> None:
    tracker = resource(home).tracker(batch="2026-W47")
    run_id, version = tracker.log_training(adapter(tmp_path / "a"), tmp_path / "a", CURVE, TAGS)
    both = pl.concat([ITEMS, ITEMS.with_columns(model=pl.lit("base"), fingerprint=pl.lit("r1"), score=0.5)])
    mine = both.filter(model="lora_adapter")
    claims = [replace(metric(items=mine), items_sha256=content_hash(both))]
    low, high = claims[0].ci_low, claims[0].ci_high
    half = estimate([0.5] * 5, [f"c{n}" for n in range(5)])
    claims.append(
        replace(
            claims[0],
            model="base",
            value=half.value,
            n=half.n,
            ci_low=half.low,
            ci_high=half.high,
            interval=half.method,
        )
    )
    for _ in range(2):  # a repeated call adds nothing
        evaluation = tracker.log_scores(claims, both, {"lora_adapter": version})
    other_data = [replace(claim, data_hash="other") for claim in claims]  # other items changed, these did not
    assert tracker.log_scores(other_data, both, {"lora_adapter": version}) == evaluation
    client = tracker.client
    trained = client.get_run(run_id)
    expected = {"": 0.75, "_low": low, "_high": high, "_n": 4.0}
    assert {name: trained.data.metrics[f"qa/test/strict{name}"] for name in expected} == expected
    assert len(client.get_metric_history(run_id, "qa/test/strict")) == 1

    models = {model.name: model for model in client.search_logged_models([tracker.experiment])}
    assert set(models) == {"lora_adapter", "base_model"}
    scores = {
        (name, score.key): (score.value, score.dataset_name, score.dataset_digest)
        for name, model in models.items()
        for score in model.metrics or []
    }
    assert scores["lora_adapter", "qa/test/strict"] == (0.75, "evaluation_items", "d")
    assert scores["base_model", "qa/test/strict"] == (0.5, "evaluation_items", "d")
    assert len(scores) == 8
    base_run = client.get_run(models["base_model"].source_run_id)
    assert (base_run.info.run_name, base_run.info.status) == ("base_model/r1", "FINISHED")
    assert [output.model_id for output in trained.outputs.model_outputs] == [models["lora_adapter"].model_id]
    (data,) = [used.dataset for used in trained.inputs.dataset_inputs if used.dataset.name == "evaluation_items"]
    assert json.loads(data.profile) == {"num_rows": 5, "rows_by_split": {"test": 5}, "nulls": {}}
    assert [column["name"] for column in json.loads(data.schema)["mlflow_colspec"]] == [
        *("suite", "split", "item_id", "cluster")
    ]
    scored = {used.model_id for used in client.get_run(evaluation).inputs.model_inputs}
    assert scored == {model.model_id for model in models.values()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 0.8}, "expected value 0.75 from the items, got 0.8"),
        ({"n": 5}, "got n 5"),
        ({"ci_low": 0.5}, "from the items, got 0.5"),
        ({"ci_high": float("nan")}, "from the items, got nan"),
        ({"interval": "bootstrap 0.95"}, "interval 'bootstrap 0.95'"),
        ({"kind": "derived"}, "must be measured to enter the registry, got derived"),
        ({"items_sha256": "typed in"}, "got typed in"),
        ({"model": "dpo_adapter"}, "no item has a score"),
        ({"unanswerable": 1}, "expected 0 unanswerable items, got 1"),
    ],
)
def test_metric_that_does_not_match_its_items_is_rejected(home: Path, change: dict[str, object], message: str) -> None:
    client = resource(home).client()
    tracker = MlflowTracker(client(), "0", resource(home).lock, {})
    with pytest.raises(ValueError, match=re.escape(message)):
        tracker.log_scores([metric(), replace(metric(), **change)], ITEMS, {})
    assert tracker.client.search_runs(["0"]) == []


def test_unanswerable_count_is_verified() -> None:
    left_out = pl.when(pl.col("score").is_null()).then(pl.lit("context_exceeded")).otherwise(pl.col("finish_reason"))
    items = ITEMS.with_columns(finish_reason=left_out)
    honest = replace(metric(items=items), unanswerable=1)
    verify_metric(honest, items, content_hash(items))
    with pytest.raises(ValueError, match="expected 1 unanswerable items, got 0"):
        verify_metric(replace(honest, unanswerable=0), items, content_hash(items))
    scored = items.with_columns(pl.col("score").fill_null(1.0))
    with pytest.raises(ValueError, match="1 unanswerable items have a score, such as i4"):
        verify_metric(replace(metric(items=scored), unanswerable=1), scored, content_hash(scored))


def test_aliases_move_with_their_evidence(home: Path, tmp_path: Path) -> None:
    tracker = resource(home).tracker()
    assert tracker.alias("champion") is None
    for weight in (1.0, 2.0):
        register(home, tmp_path / str(weight), weight)
    tracker.set_alias("champion", "1", {"decision": "promoted"})
    tracker.set_alias("champion", "2", {"decision": "promoted"})
    assert (tracker.alias("champion"), tracker.alias("challenger")) == ("2", None)
    assert tracker.version_tags("2")["decision"] == "promoted"
    with pytest.raises(KeyError, match="no version 9"):
        tracker.set_alias("champion", "9", {})
    assert tracker.alias("champion") == "2"
