"""Whatever runs a model holds a slot of the pool: steps, checks, and commands."""

import json
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from checks.models import reward_model_is_sane
from resources.gpu_slots import COMMAND, command_gpu_slot, free_dead_commands
from resources.hardware import GPU_POOL
from synth_assets.cli import preview
from synth_assets.cli.preview import make_preview
from synth_assets.cli.session import open_session
from tests.support.fakes import silent


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        instance.event_log_storage.set_concurrency_slots(GPU_POOL, 1)
        yield instance


def holders(instance: dg.DagsterInstance) -> list[str]:
    return [slot.run_id for slot in instance.event_log_storage.get_concurrency_info(GPU_POOL).claimed_slots]


def test_the_check_that_runs_the_reward_model_is_a_step_of_the_pool() -> None:
    assert reward_model_is_sane.node_def.pools == {GPU_POOL}


def test_a_command_holds_a_slot_while_it_runs_a_model(instance: dg.DagsterInstance) -> None:
    with command_gpu_slot(instance, "synth ask", silent):
        (holder,) = holders(instance)
        assert json.loads(holder.removeprefix(COMMAND))[1] == psutil.Process().pid
    assert holders(instance) == []
    with pytest.raises(RuntimeError, match="out of memory"), command_gpu_slot(instance, "synth ask", silent):
        raise RuntimeError("out of memory")
    assert holders(instance) == []


def test_a_command_waits_for_a_slot_and_says_so(instance: dg.DagsterInstance) -> None:
    storage, lines, entered = instance.event_log_storage, [], threading.Event()
    assert storage.claim_concurrency_slot(GPU_POOL, "a-run", "lora_adapter").is_claimed

    def ask() -> None:
        with command_gpu_slot(instance, "synth ask", lines.append):
            entered.set()

    waiting = threading.Thread(target=ask)
    waiting.start()
    assert not entered.wait(1.0)
    storage.free_concurrency_slots_for_run("a-run")
    assert entered.wait(20.0)
    waiting.join()
    assert lines == ["waiting for a slot of the GPU pool: all are taken"]


def test_the_slot_of_a_killed_command_is_free_again(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    here = psutil.Process()
    gone = COMMAND + json.dumps([platform.node(), here.pid, here.create_time() - 1_000])  # the number was used again
    assert storage.claim_concurrency_slot(GPU_POOL, gone, "synth ask").is_claimed
    free_dead_commands(instance)
    assert holders(instance) == []
    elsewhere = COMMAND + json.dumps(["another-machine", 1, 0.0])
    assert storage.claim_concurrency_slot(GPU_POOL, elsewhere, "synth ask").is_claimed
    free_dead_commands(instance)
    assert holders(instance) == [elsewhere]


def test_preview_holds_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    session, turns = open_session("cpu"), []

    @contextmanager
    def turn(instance: dg.DagsterInstance, command: str, progress: object) -> Iterator[None]:
        assert instance is session.instance
        assert callable(progress)
        turns.append(f"{command} begins")
        yield
        turns.append(f"{command} ends")

    def generate(*_: object) -> None:
        turns.append("generates")
        raise ValueError("enough")

    monkeypatch.setattr(preview, "command_gpu_slot", turn)
    monkeypatch.setattr(preview, "generate", generate)
    with pytest.raises(ValueError, match="enough"):
        make_preview(session, None, (), silent)
    assert turns == ["synth preview begins", "generates"]
