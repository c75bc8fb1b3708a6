"""Schedule and sensors without a daemon: run requests, run keys, notices and their default status."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pytest
from safetensors.numpy import save_file

from resources.dagster_private import SensorExecutionData
from resources.hardware import Hardware
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from resources.webhook import Webhook
from synth_assets.cli.run import run_tags
from synth_assets.definitions import build_definitions, deployment_resources
from synth_assets.orchestration import outbox, sensors
from synth_assets.stages.promotion.candidates import CHAMPION
from tests.support.fakes import Clock
from tests.support.records import make_lora
from tests.support.webhook import Service

pytestmark = pytest.mark.integration


CPU = Hardware(tier="cpu")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def home(own_home: Path) -> SynthHome:
    return SynthHome(folder=str(own_home))


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(deployment_resources())


def test_all_automation_is_off_by_default(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    assert {s.name: s.default_status.value for s in repository.schedule_defs} == {"retraining": "STOPPED"}
    assert {s.name: s.default_status.value for s in repository.sensor_defs} == {
        "new_imports": "STOPPED",
        "champion_moved_by_hand": "STOPPED",
        "failure_notice": "STOPPED",
        "decision_notice": "STOPPED",
    }


def test_requested_jobs_and_assets_exist(definitions: dg.Definitions) -> None:
    for job in ("pipeline", "promote"):
        assert definitions.resolve_job_def(job).name == job
    graph = definitions.resolve_asset_graph()
    chosen = {key.to_user_string() for key in sensors.FROM_IMPORTS.resolve(graph)}
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
def test_a_week_gives_the_same_run_request_at_every_tick(
    instance: dg.DagsterInstance, when: datetime, batch: str
) -> None:
    def ask() -> dg.RunRequest:
        at = when.replace(tzinfo=ZoneInfo("UTC"))
        request = sensors.retraining(dg.build_schedule_context(instance, scheduled_execution_time=at), hardware=CPU)
        assert isinstance(request, dg.RunRequest)
        return request

    first = ask()
    assert ask() == first
    assert (first.run_key, first.tags["dagster/partition"]) == (batch, batch)
    assert first.tags.items() >= {"batch": batch, "tier": "cpu", "trigger": "schedule"}.items()
    assert list(instance.get_dynamic_partitions("batches")) == []  # testing a tick in the UI adds no batch


def tick_of_new_imports(
    home: SynthHome, instance: dg.DagsterInstance, definitions: dg.Definitions
) -> SensorExecutionData:
    resources = {"home": home, "hardware": CPU}
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance, repository_def=repository, resources=resources) as context:
        return sensors.new_imports.evaluate_tick(context)


def test_imports_without_a_batch_start_the_first_batch(
    home: SynthHome, instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    assert not tick_of_new_imports(home, instance, definitions).run_requests
    assert list(instance.get_dynamic_partitions("batches")) == []
    (home.imports() / "b.jsonl").write_text("one\n")
    (request,) = tick_of_new_imports(home, instance, definitions).run_requests or []
    assert request.tags.items() >= {"dagster/partition": "first", "batch": "first", "trigger": "import"}.items()
    assert list(instance.get_dynamic_partitions("batches")) == []
    keys = {key.to_user_string() for key in request.asset_selection or []}
    assert not keys or {"teacher_model", "raw_instructions", "imported_instructions", "champion"} <= keys
    (again,) = tick_of_new_imports(home, instance, definitions).run_requests or []
    assert again.run_key == request.run_key  # the daemon starts no second run for a key


def test_each_set_of_imported_files_gives_one_run(
    home: SynthHome, instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    instance.add_dynamic_partitions("batches", ["2026-W47"])

    def ask() -> dg.RunRequest:
        (request,) = tick_of_new_imports(home, instance, definitions).run_requests or []
        return request

    assert not tick_of_new_imports(home, instance, definitions).run_requests
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
    return tracking.tracker().log_training(make_lora(), folder, [{"step": 1, "loss": 2.0}], {})[1]


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, **resources: object) -> SensorExecutionData:
    """Evaluate a sensor once, as the daemon does."""
    with dg.build_sensor_context(instance, resources=resources) as context:
        return sensor.evaluate_tick(context)


def test_a_champion_moved_by_hand_is_evaluated_once(
    home: SynthHome, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    tracking = MlflowTracking(home=home)

    def ask() -> SensorExecutionData:
        resources = {"home": home, "tracking": tracking, "hardware": CPU}
        return tick(sensors.champion_moved_by_hand, instance, **resources)

    version = registered(tracking, tmp_path / "adapter")
    assert not ask().run_requests
    tracking.client()().set_registered_model_alias("synth-instruct", CHAMPION, version)
    (request,) = ask().run_requests or []
    assert request.tags.items() >= {"tier": "cpu", "trigger": "alias"}.items()
    assert request.run_config["ops"]["promotion_decision"]["config"]["adopt"] is True
    (again,) = ask().run_requests or []
    assert again.run_key == request.run_key  # the daemon starts no second run for a key


def test_tags_of_a_run_of_the_command() -> None:
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


def fail_run(instance: dg.DagsterInstance) -> str:
    job = dg.Definitions([unlucky], jobs=[dg.define_asset_job("unlucky_job")]).resolve_job_def("unlucky_job")
    return job.execute_in_process(instance=instance, raise_on_error=False, tags={"batch": "b1"}).run_id


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(time.time())
    monkeypatch.setattr(outbox.deliver, "__defaults__", (clock,))
    return clock


class Ticks:
    """Evaluate a sensor repeatedly, as the daemon does: each tick starts with the cursor of the previous one."""

    def __init__(self, sensor: dg.SensorDefinition, instance: dg.DagsterInstance, webhook: Webhook) -> None:
        self.sensor, self.instance, self.webhook = sensor, instance, webhook
        self.cursor: str | None = None

    def __call__(self) -> str:
        resources = {"webhook": self.webhook}
        with dg.build_sensor_context(self.instance, self.cursor, resources=resources) as context:
            answer = self.sensor.evaluate_tick(context)
        assert not answer.run_requests
        self.cursor = answer.cursor
        return str(answer.skip_message)


def test_a_failure_is_notified_once(instance: dg.DagsterInstance) -> None:
    with Service(200) as service:
        ticks = Ticks(sensors.failure_notice, instance, service.webhook)
        assert ticks() == "no new event"
        run_id = fail_run(instance)
        assert ticks() == "sent 1 notice"
        assert ticks() == "no new event"
    (notice,) = service.received
    assert notice["text"] == "unlucky_job failed: unlucky: the disk is on fire"
    assert notice["facts"] == {"run_id": run_id, "batch": "b1", "dagster/failure_reason": "STEP_FAILURE"}
    assert notice["id"] == f"failure-{run_id}"
    assert service.keys == [notice["id"]]


@dg.asset(name="promotion_decision")
def decided() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"outcome": "refused", "reason": "effect: found 0.01, wanted 0.02"})


def decide(instance: dg.DagsterInstance) -> str:
    return dg.materialize([decided], instance=instance).run_id


def test_each_decision_is_notified_and_starts_no_run(instance: dg.DagsterInstance) -> None:
    with Service(200) as service:
        ticks = Ticks(sensors.decision_notice, instance, service.webhook)
        runs = [decide(instance), decide(instance)]  # two between two ticks
        assert ticks() == "sent 2 notices"
        assert ticks() == "no new event"
    assert [notice["facts"]["run_id"] for notice in service.received] == runs  # pyright: ignore[reportIndexIssue]
    assert service.received[0]["text"] == "promotion: refused (effect: found 0.01, wanted 0.02)"
    assert len(set(service.keys)) == 2


@pytest.mark.parametrize(("sensor", "cause"), [(sensors.failure_notice, fail_run), (sensors.decision_notice, decide)])
def test_a_notice_is_retried_until_the_webhook_accepts_it(
    instance: dg.DagsterInstance, clock: Clock, sensor: dg.SensorDefinition, cause: Callable[[dg.DagsterInstance], str]
) -> None:
    with Service(503) as service:
        ticks = Ticks(sensor, instance, service.webhook)
        cause(instance)
        assert ticks() == (
            f"1 pending, next attempt in 30 s; the webhook at http://127.0.0.1:{service.server.server_port} "
            "did not accept the notice: status 503"
        )
        assert ticks() == "1 pending, next attempt in 30 s"
        clock.now += 30
        assert "next attempt in 60 s" in ticks()
        cause(instance)  # a second notice does not wait for the first
        service.status = 200
        assert ticks() == "sent 1 notice; 1 pending, next attempt in 60 s"
        clock.now += 60
        assert ticks() == "sent 1 notice"
        assert ticks() == "no new event"
    refused, repeated, second, taken = service.keys
    assert refused == repeated == taken != second


def test_an_unreachable_server_costs_one_attempt_per_tick(instance: dg.DagsterInstance, clock: Clock) -> None:
    with Service(200) as service:
        pass  # closed
    ticks = Ticks(sensors.failure_notice, instance, service.webhook)
    runs = [fail_run(instance) for _ in range(3)]
    assert ticks().startswith("3 pending, next attempt in 30 s")
    clock.now += 30
    assert ticks().startswith("3 pending, next attempt in 60 s")
    clock.now += 60
    with Service(200) as back:
        ticks.webhook = back.webhook
        assert ticks() == "sent 3 notices"
    assert [notice["id"] for notice in back.received] == [f"failure-{run_id}" for run_id in runs]


def test_failures_beyond_the_cursor_limit_wait_in_the_event_log(
    instance: dg.DagsterInstance, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_PENDING", 2)
    with Service(503) as service:
        ticks = Ticks(sensors.failure_notice, instance, service.webhook)
        runs = [fail_run(instance) for _ in range(3)]
        assert ticks().startswith("2 pending")
        service.status = 200
        service.received.clear()
        clock.now += 30
        assert ticks() == "sent 2 notices"
        assert ticks() == "sent 1 notice"
    assert [notice["id"] for notice in service.received] == [f"failure-{run_id}" for run_id in runs]


def test_a_deleted_run_is_not_notified(instance: dg.DagsterInstance, clock: Clock) -> None:
    with Service(503) as service:
        ticks = Ticks(sensors.decision_notice, instance, service.webhook)
        run_id = decide(instance)
        assert ticks().startswith("1 pending")
        instance.delete_run(run_id)
        clock.now += 30
        assert ticks() == "no new event"


@pytest.mark.parametrize("cursor", ["7", '{"__class__": "RunStatusSensorCursor", "record_id": 7}', "nonsense", None])
def test_the_cursor_of_an_earlier_version_is_read(cursor: str | None) -> None:
    assert outbox.Outbox.read(cursor) == outbox.Outbox(7 if cursor == "7" else None)


def test_only_failures_since_the_start_of_the_sensor_are_notified(instance: dg.DagsterInstance) -> None:
    fail_run(instance)
    with Service(200) as service:
        resources = {"webhook": service.webhook}
        started = time.time()
        with dg.build_sensor_context(instance, resources=resources, last_sensor_start_time=started) as context:
            assert sensors.failure_notice.evaluate_tick(context).skip_message == "no new event"
        run_id = fail_run(instance)
        with dg.build_sensor_context(instance, resources=resources, last_sensor_start_time=started) as context:
            assert sensors.failure_notice.evaluate_tick(context).skip_message == "sent 1 notice"
    assert [notice["id"] for notice in service.received] == [f"failure-{run_id}"]


def test_without_a_webhook_no_notice_is_sent(instance: dg.DagsterInstance) -> None:
    ticks = Ticks(sensors.decision_notice, instance, Webhook())
    decide(instance)
    assert "SYNTH_WEBHOOK_URL" in ticks()
    with Service(200) as service:
        ticks.webhook = service.webhook  # set later: earlier decisions are not notified
        assert ticks() == "no new event"


def test_webhook_failures_show_only_the_server(instance: dg.DagsterInstance) -> None:
    ticks = Ticks(sensors.decision_notice, instance, Webhook(url="http://bob:hunter2@127.0.0.1:9/hunter2?hunter2#x"))
    decide(instance)
    message = ticks()
    assert "the webhook at http://127.0.0.1:9 did not accept" in message
    assert "hunter2" not in message + str(ticks.cursor)
