import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
DOCKERFILE = (PROJECT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT / "docker" / "compose.yaml").read_text())
CONSTRAINTS = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines() if "==" in line)


def test_versions_in_the_dockerfile_are_the_constrained_ones() -> None:
    pinned = re.findall(r"([A-Za-z0-9_.-]+)==([0-9][^\s\\'\"]*)", DOCKERFILE)
    assert pinned
    assert [(name, version) for name, version in pinned if CONSTRAINTS[name] != version] == []


def test_everything_copied_exists() -> None:
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert sources
    assert [name for name in sources if not (PROJECT / name).exists()] == []


def test_both_targets_are_there() -> None:
    assert re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE) == ["source", "cpu", "cuda"]


@pytest.mark.parametrize("service", [name for name, s in COMPOSE["services"].items() if "command" in s])
def test_commands_are_real_entry_points(service: str) -> None:
    commands = {entry.name for entry in entry_points(group="console_scripts")}
    assert COMPOSE["services"][service]["command"][0] in commands


def test_compose_has_all_five_services_on_loopback_only() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"postgres", "mlflow", "code", "webserver", "daemon"}
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_instance_settings_hold_what_killed_runs_need() -> None:
    settings = yaml.safe_load((PROJECT / "docker" / "dagster.yaml").read_text())
    assert settings["concurrency"]["pools"]["granularity"] == "op"
    assert settings["run_monitoring"]["free_slots_after_run_end_seconds"] == 5
    assert settings["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert settings["telemetry"]["enabled"] is False


def test_mounted_files_exist() -> None:
    mounts = [m.split(":")[0] for s in COMPOSE["services"].values() for m in s.get("volumes", []) if m.startswith(".")]
    assert [name for name in mounts if not (PROJECT / "docker" / name).exists()] == []
