import re
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from resources.deployment import write_instance_settings
from synth_assets.cli.app import app
from synth_assets.text.redaction import holds_secret

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
DOCKERFILE = (PROJECT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT / "docker" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
CONSTRAINTS = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines() if "==" in line)


def test_versions_in_the_dockerfile_are_the_constrained_ones() -> None:
    pinned = re.findall(r"([A-Za-z0-9_.-]+)==([0-9][^\s\\'\"]*)", DOCKERFILE)
    assert pinned
    assert [(name, version) for name, version in pinned if CONSTRAINTS[name] != version] == []


def test_every_copied_path_exists() -> None:
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert sources
    assert [name for name in sources if not (PROJECT / name).exists()] == []


def test_the_dockerfile_has_all_targets() -> None:
    assert re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE) == ["source", "cpu", "cuda"]


@pytest.mark.parametrize("service", [name for name, s in COMPOSE["services"].items() if "command" in s])
def test_commands_are_real_entry_points(service: str) -> None:
    commands = {entry.name for entry in entry_points(group="console_scripts")}
    assert COMPOSE["services"][service]["command"][0] in commands


def test_compose_has_all_services_on_loopback_only() -> None:
    assert set(SERVICES) == {"postgres", "mlflow", "code", "code-cuda", "webserver", "daemon"}
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_profile_cuda_reserves_the_gpu_and_replaces_the_cpu_service() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"code": ["cpu"], "code-cuda": ["cuda"]}
    cuda = SERVICES["code-cuda"]
    (device,) = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert (cuda["build"]["target"], cuda["image"]) == ("cuda", "synth-assets:cuda")
    located = yaml.safe_load((PROJECT / "docker" / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    assert located["host"] == "code"
    assert cuda["networks"]["default"]["aliases"] == ["code"]
    assert [name for name, service in SERVICES.items() if name != "code-cuda" and "deploy" in service] == []


def test_each_service_has_a_health_check_and_waits_for_its_dependencies() -> None:
    assert [name for name, service in SERVICES.items() if "test" not in service.get("healthcheck", {})] == []
    dependencies = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    conditions = [condition for needed in dependencies.values() for condition in needed.values()]
    assert {condition["condition"] for condition in conditions} == {"service_healthy"}
    assert {name: sorted(needed) for name, needed in dependencies.items()} == {
        "postgres": [],
        "mlflow": ["postgres"],
        "code": ["mlflow", "postgres"],
        "code-cuda": ["mlflow", "postgres"],
        "webserver": ["code", "code-cuda"],
        "daemon": ["code", "code-cuda"],
    }
    optional = [condition.get("required", True) for condition in dependencies["webserver"].values()]
    assert optional == [False, False]  # a profile starts one of the two


def test_no_password_is_in_a_command_or_an_address() -> None:
    for name, service in SERVICES.items():
        commands = [*service.get("command", []), *service["healthcheck"]["test"]]
        assert [word for word in commands if "$" in word or holds_secret(word)] == [], name
        addresses = [value for value in service["environment"].values() if "://" in value]
        assert [value for value in addresses if "PASSWORD" in value] == [], name
        databases = [value for value in addresses if value.startswith("postgresql")]
        assert all(value.startswith("postgresql+psycopg2://") for value in databases), name  # the installed driver
        if name != "postgres":
            assert service["environment"]["PGPASSWORD"].startswith("${POSTGRES_PASSWORD:?")


def test_images_run_as_an_unprivileged_user() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[2:]
    assert [re.findall(r"^USER (\S+)$", stage, re.MULTILINE) for stage in stages] == [["synth"], ["synth"]]
    services = [service for name, service in SERVICES.items() if name != "postgres"]
    assert all(service["security_opt"] == ["no-new-privileges:true"] for service in services)


def test_the_ui_is_served_behind_the_request_guard() -> None:
    command = SERVICES["webserver"]["command"]
    assert command[:2] == ["synth", "webserver"]
    options = {name for parameter in get_command(app).commands["webserver"].params for name in parameter.opts}  # pyright: ignore[reportAttributeAccessIssue]
    assert {word for word in command if word.startswith("--")} <= options
    assert any(word.startswith("--allowed-hosts=mlflow:5000,") for word in SERVICES["mlflow"]["command"])


@pytest.fixture
def container_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set DAGSTER_HOME to a copy of docker/, as in a container."""
    folder = tmp_path / "docker"
    shutil.copytree(PROJECT / "docker", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_command_does_not_change_the_settings_of_a_container(container_home: Path, own_home: Path) -> None:
    before = content(container_home)
    assert write_instance_settings(own_home) == container_home / "dagster.yaml"
    assert content(container_home) == before
    assert b"DAGSTER_POSTGRES_URL" in before["dagster.yaml"]


def test_settings_written_by_synth_are_rewritten(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (own_home / "dagster", tmp_path / "elsewhere"):
        monkeypatch.setenv("DAGSTER_HOME", str(folder))
        path = write_instance_settings(own_home)
        settings = yaml.safe_load(path.read_text())
        assert not {"storage", "compute_logs", "local_artifact_storage"} & settings.keys()
        path.write_text(path.read_text().replace("max_retries: 2", "max_retries: 7"))
        assert yaml.safe_load(write_instance_settings(own_home).read_text()) == settings


def test_instance_settings_for_killed_runs() -> None:
    settings = yaml.safe_load((PROJECT / "docker" / "dagster.yaml").read_text())
    assert settings["concurrency"]["pools"]["granularity"] == "op"
    assert settings["run_monitoring"]["free_slots_after_run_end_seconds"] == 5
    assert settings["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert settings["telemetry"]["enabled"] is False


def test_mounted_files_exist() -> None:
    mounts = [m.split(":")[0] for s in COMPOSE["services"].values() for m in s.get("volumes", []) if m.startswith(".")]
    assert [name for name in mounts if not (PROJECT / "docker" / name).exists()] == []
