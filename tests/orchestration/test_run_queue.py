"""The run slot, and backfills: shared assets are materialised once for all batches."""

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest
import yaml

from resources.deployment import write_instance_settings
from resources.partitions import BATCHES_NAME
from synth_assets.definitions import build_definitions, deployment_resources
from synth_assets.orchestration import jobs, sensors
from synth_assets.orchestration.run_queue import (
    QUEUED,
    run_slot,
    run_slot_holder,
    wait_for_run_slot,
    writes_shared_tables,
)

pytestmark = pytest.mark.integration

BACKFILLED = Path(__file__).parents[1] / "support" / "backfilled.py"


def test_a_backfill_of_two_batches_materialises_both_and_trains_once(own_home: Path) -> None:
    own_home.mkdir()
    result = subprocess.run([sys.executable, BACKFILLED], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    steps = Counter((own_home / "steps").read_text().splitlines())
    assert steps == Counter(["a teacher", "a raw", "a check", "c teacher", "c raw", "c check", "c trained"])
    assert "the last run of this backfill does the rest" in result.stderr
    assert not (own_home / "locks" / "pipeline.run").exists()
    with dg.DagsterInstance.get() as instance:
        assert list(instance.get_dynamic_partitions(BATCHES_NAME)) == ["a", "b", "c"]


def test_a_second_run_waits_for_the_first_and_names_it(tmp_path: Path) -> None:
    order: list[str] = []
    lines: list[str] = []

    def second() -> None:
        with run_slot(tmp_path, "the second", lines.append):
            order.append("second")

    with run_slot(tmp_path, "run 1234 (batch first)", lines.append):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.3)
        order.append("first")
        assert run_slot_holder(tmp_path) == "run 1234 (batch first)"
    other.join()
    assert order == ["first", "second"]
    assert len(lines) == 1
    assert "run 1234 (batch first)" in lines[0]
    assert run_slot_holder(tmp_path) is None
    wait_for_run_slot(tmp_path, lines.append)
    assert len(lines) == 1


def test_an_interrupt_ends_the_wait(tmp_path: Path) -> None:
    def stop() -> None:
        raise InterruptedError

    def wait() -> None:
        with run_slot(tmp_path, "two", lambda _: None, stop):
            pass

    with run_slot(tmp_path, "one", lambda _: None), pytest.raises(InterruptedError):
        wait()


def test_a_killed_run_releases_the_slot(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from synth_assets.orchestration.run_queue import run_slot\n"
        "with run_slot(Path(sys.argv[1]), 'killed', print):\n    print('has it', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"has it\n"
        assert run_slot_holder(tmp_path) == "killed"
        process.kill()
    wait_for_run_slot(tmp_path, pytest.fail)


def test_the_daemon_starts_one_run_of_the_pipeline_at_a_time(own_home: Path) -> None:
    settings = yaml.safe_load(write_instance_settings(own_home).read_text("utf-8"))
    (limit,) = settings["concurrency"]["runs"]["tag_concurrency_limits"]
    assert {limit["key"]: limit["value"]} == QUEUED
    assert limit["limit"] == 1
    definitions = build_definitions(deployment_resources())
    assert QUEUED.items() <= dict(definitions.resolve_job_def("pipeline").run_tags).items()
    assert not QUEUED.items() <= dict(definitions.resolve_job_def("promote").run_tags).items()
    with dg.DagsterInstance.get() as instance:
        assert instance.get_concurrency_config().run_queue_config is not None


@pytest.mark.parametrize(
    ("job", "tags", "expected"),
    [
        ("pipeline", {**jobs.QUEUED, "x": "y"}, True),
        ("__ASSET_JOB", {}, True),  # assets selected in the UI
        ("promote", {}, False),  # a rollback does not wait for a training
        ("study", {}, False),
    ],
)
def test_which_runs_need_the_slot(job: str, tags: dict[str, str], expected: bool) -> None:
    assert writes_shared_tables(job, tags) is expected
    assert sensors.QUEUED == jobs.QUEUED
