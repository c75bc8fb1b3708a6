"""Schedules and sensors without a daemon: each asks for what it should, once, and is off until somebody wants it."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from safetensors.numpy import save_file

from resources.hardware import Hardware
from resources.notices import Webhook
from resources.storage import Home
from resources.tracking import MlflowTracking
from synth_assets import automation
from synth_assets.commands.run import run_tags
from synth_assets.definitions import build_definitions, deployment_resources
from synth_assets.promotion.contenders import CHAMPION
from synth_assets.records import AdapterRecord

CPU = Hardware(tier="cpu")


class Service:
    """A real HTTP server that keeps what it is sent and answers `status`."""

    def __init__(self, status: int) -> None:
        outer = self
        self.received: list[dict[str, object]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.webhook = Webhook(url=f"http://127.0.0.1:{self.server.server_port}/hook")

    def __enter__(self) -> "Service":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def home(own_home: Path) -> Home:
    return Home(folder=str(own_home))


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(deployment_resources())


def test_all_is_off_until_switched_on(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    assert {s.name: s.default_status.value for s in repository.schedule_defs} == {"retraining": "STOPPED"}
    assert {s.name: s.default_status.value for s in repository.sensor_defs} == {
        "new_imports": "STOPPED",
        "champion_moved_by_hand": "STOPPED",
        "failure_notice": "STOPPED",
        "decision_notice": "STOPPED",
    }


def test_what_is_asked_for_exists(definitions: dg.Definitions) -> None:
    for job in ("pipeline", "promote"):
        assert definitions.resolve_job_def(job).name == job
    graph = definitions.resolve_asset_graph()
    chosen = {key.to_user_string() for key in automation.FROM_IMPORTS.resolve(graph)}
    assert {"imported_instructions", "imported_preferences", "filtered_instructions", "champion"} <= chosen
    assert not chosen & {"raw_instructions", "teacher_model", "benchmark_items"}


@pytest.mark.parametrize(
    ("when", "batch"),
    [
        (datetime(2026, 11, 16, 3), "2026-W47"),
        (datetime(2027, 1, 4, 3), "2027-W01"),
        (datetime(2026, 12, 28, 3), "2026-W53"),  # ISO week 53 of a year that began on a Thursday
    ],
)
def test_a_week_is_one_batch_however_often_it_is_asked(
    instance: dg.DagsterInstance, when: datetime, batch: str
) -> None:
    def ask() -> dg.RunRequest:
        at = when.replace(tzinfo=ZoneInfo("UTC"))
        request = automation.retraining(dg.build_schedule_context(instance, scheduled_execution_time=at), hardware=CPU)
        assert isinstance(request, dg.RunRequest)
        return request

    first = ask()
    assert ask() == first
    assert (first.run_key, first.tags["dagster/partition"]) == (batch, batch)
    assert first.tags.items() >= {"batch": batch, "tier": "cpu", "trigger": "schedule"}.items()
    assert list(instance.get_dynamic_partitions("batches")) == []  # a test of the tick in the UI makes no batch


def looks_for_imports(home: Home, instance: dg.DagsterInstance, definitions: dg.Definitions) -> SensorExecutionData:
    resources = {"home": home, "hardware": CPU}
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance, repository_def=repository, resources=resources) as context:
        return automation.new_imports.evaluate_tick(context)


def test_imports_alone_start_a_first_batch(
    home: Home, instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    assert not looks_for_imports(home, instance, definitions).run_requests
    assert list(instance.get_dynamic_partitions("batches")) == []
    (home.imports() / "b.jsonl").write_text("one\n")
    (request,) = looks_for_imports(home, instance, definitions).run_requests or []
    assert request.tags.items() >= {"dagster/partition": "first", "batch": "first", "trigger": "import"}.items()
    assert list(instance.get_dynamic_partitions("batches")) == []
    keys = {key.to_user_string() for key in request.asset_selection or []}
    assert not keys or {"teacher_model", "raw_instructions", "imported_instructions", "champion"} <= keys
    (again,) = looks_for_imports(home, instance, definitions).run_requests or []
    assert again.run_key == request.run_key  # the daemon starts no second run for a key


def test_each_set_of_imported_files_is_one_run(
    home: Home, instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    instance.add_dynamic_partitions("batches", ["2026-W47"])

    def ask() -> dg.RunRequest:
        (request,) = looks_for_imports(home, instance, definitions).run_requests or []
        return request

    assert not looks_for_imports(home, instance, definitions).run_requests
    (home.imports() / "b.jsonl").write_text("one\n")
    first = ask()
    assert first.tags.items() >= {"batch": "all", "tier": "cpu", "trigger": "import"}.items()
    chosen = {key.to_user_string() for key in first.asset_selection or []}
    assert {"imported_instructions", "filtered_instructions", "champion"} <= chosen
    assert not chosen & {"raw_instructions", "teacher_model"}
    (home.imports() / ".half.jsonl.tmp").write_text("t")
    assert ask().run_key == first.run_key
    (home.imports() / "a.jsonl").write_text("two\n")
    second = ask()
    assert second.run_key != first.run_key
    (home.imports() / "a.jsonl").rename(home.imports() / "c.jsonl")
    assert ask().run_key == second.run_key
    (home.imports() / "b.jsonl").write_text("one.\n")
    assert ask().run_key not in {first.run_key, second.run_key}


def registered(tracking: MlflowTracking, folder: Path) -> str:
    folder.mkdir()
    save_file({"weight": np.ones(2, np.float32)}, folder / "adapter_model.safetensors")
    record = AdapterRecord(
        *("lora_adapter", "lora", "candidate", "f1", "adapters/f1", "m", "", "", "base", "r"),
        *({"rank": 2}, {"sft_dataset": "v"}, 1, 2, 3, "derived", 1.0, 1.0, 0.0, 1.0),
    )
    return tracking.tracker().log_training(record, folder, [{"step": 1, "loss": 2.0}], {})[1]


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, **resources: object) -> SensorExecutionData:
    """What the daemon would do with one look of the sensor."""
    with dg.build_sensor_context(instance, resources=resources) as context:
        return sensor.evaluate_tick(context)


def test_a_champion_moved_by_hand_is_judged_once(home: Home, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    tracking = MlflowTracking(home=home)

    def ask() -> SensorExecutionData:
        resources = {"home": home, "tracking": tracking, "hardware": CPU}
        return tick(automation.champion_moved_by_hand, instance, **resources)

    version = registered(tracking, tmp_path / "adapter")
    assert not ask().run_requests
    tracking.client()().set_registered_model_alias("synth-instruct", CHAMPION, version)
    (request,) = ask().run_requests or []
    assert request.tags.items() >= {"tier": "cpu", "trigger": "alias"}.items()
    assert request.run_config["ops"]["promotion_decision"]["config"]["adopt"] is True
    (again,) = ask().run_requests or []
    assert again.run_key == request.run_key  # the daemon starts no second run for a key


def test_a_run_of_the_command_says_who_what_and_where() -> None:
    assert (
        run_tags("2026-W47", "cpu").items()
        >= {
            "dagster/partition": "2026-W47",
            "batch": "2026-W47",
            "tier": "cpu",
            "trigger": "synth run",
        }.items()
    )


@dg.asset
def unlucky() -> None:
    raise ValueError("the disk is on fire")


def notify_failure(instance: dg.DagsterInstance, webhook: Webhook) -> str:
    job = dg.Definitions([unlucky], jobs=[dg.define_asset_job("unlucky_job")]).resolve_job_def("unlucky_job")
    result = job.execute_in_process(instance=instance, raise_on_error=False, tags={"batch": "b1"})
    event = next(e for e in result.all_events if e.event_type == dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context("failure_notice", event, instance, result.dagster_run)
    automation.failure_notice(context.for_run_failure(), webhook=webhook)
    return result.run_id


def test_a_failure_is_told(instance: dg.DagsterInstance) -> None:
    with Service(200) as service:
        run_id = notify_failure(instance, service.webhook)
    (notice,) = service.received
    assert "unlucky_job failed" in str(notice["text"])
    assert notice["facts"] == {"run_id": run_id, "batch": "b1", "dagster/failure_reason": "STEP_FAILURE"}


@dg.asset(name="promotion_decision")
def decided() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"outcome": "refused", "reason": "effect: found 0.01, wanted 0.02"})


def notify_decision(instance: dg.DagsterInstance, webhook: Webhook) -> SensorExecutionData:
    dg.materialize([decided], instance=instance)
    return tick(automation.decision_notice, instance, webhook=webhook)


def test_a_decision_is_told_and_starts_nothing(instance: dg.DagsterInstance) -> None:
    with Service(200) as service:
        answer = notify_decision(instance, service.webhook)
    assert not answer.run_requests
    (notice,) = service.received
    assert notice["text"] == "promotion: refused (effect: found 0.01, wanted 0.02)"


def test_a_notice_holds_nothing_that_a_chat_service_would_act_on() -> None:
    with Service(200) as service:
        service.webhook.send("<!channel> \x1b[31m", {"reason": "<http://x|y> & more"})
    assert service.received == [
        {"text": "&lt;!channel&gt; &lt;U+001B&gt;[31m", "facts": {"reason": "&lt;http://x|y&gt; &amp; more"}}
    ]


def test_without_a_webhook_nobody_is_told(instance: dg.DagsterInstance) -> None:
    answer = notify_decision(instance, Webhook())
    assert "SYNTH_WEBHOOK_URL" in str(answer.skip_message)


def test_a_webhook_that_is_down_or_refuses_is_an_error_that_says_so(instance: dg.DagsterInstance) -> None:
    with Service(503) as service, pytest.raises(OSError, match=r"did not take the notice.*503"):
        service.webhook.send("text", {})
    with pytest.raises(OSError, match="did not take the notice"):
        service.webhook.send("text", {})  # the server is gone
    with pytest.raises(ValueError, match="SYNTH_WEBHOOK_URL must begin"):
        Webhook(url="file:///etc/passwd").send("text", {})
