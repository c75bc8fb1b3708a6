"""State folder and process environment of a deployment. Imports no large library."""

import os
import sysconfig
from getpass import getuser
from pathlib import Path

import yaml
from filelock import FileLock

from synth_assets.llm.quiet import silence_libraries
from synth_assets.reporting.escaping import metadata_line
from synth_assets.storage.plain_path import plain_path

WORKSPACE = "workspace.yaml"
DEPLOYMENT_VARIABLES = (
    "SYNTH_",
    "MLFLOW_TRACKING_URI",
)  # prefixes; read by definitions and runs
PROJECT = Path(__file__).resolve().parents[1]
PERSON_CHARACTERS = 100  # longest login name, which the environment may set
FIRST_START_S = 120.0  # another process may be creating the tables of a new home

MARK = "# Written by synth at each start; to keep a dagster.yaml of your own, point DAGSTER_HOME at its folder."
CONTAINER_SECTIONS = ("storage", "compute_logs", "local_artifact_storage")
"""Sections of docker/dagster.yaml for containers only."""
CPU_TIERS = ("cpu", "laptop")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def home_folder() -> Path:
    """Return SYNTH_HOME, or `.synth` next to the nearest workspace.yaml upwards, else the project's own."""
    if value := os.environ.get("SYNTH_HOME"):
        return Path(value).expanduser().resolve()
    workspace = find_workspace()
    return (workspace.parent if workspace else Path.cwd()) / ".synth"


def person() -> str:
    """Return the user of this process: the login name, or the user id if there is none, as in containers."""
    try:
        return metadata_line(getuser(), PERSON_CHARACTERS)
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def find_workspace() -> Path | None:
    """Return the nearest workspace.yaml upwards, else the project's own, else None."""
    here = Path.cwd()
    files = (folder / WORKSPACE for folder in (here, *here.parents, PROJECT))
    return next((file for file in files if file.is_file()), None)


def set_up_process(home: Path, tier: str) -> None:
    """Set the environment inherited by every process of this deployment; variables set by the user win.

    On the tiers of CPU_TIERS, whose models are bundled or fetched from a package index, libraries are offline. On the
    tier cpu, waiting threads sleep, because spinning ones take cores from the step that runs beside; a real model runs
    alone and is faster with threads that spin between its many small operations.
    """
    defaults = {"SYNTH_HOME": str(home), "SYNTH_TIER": tier, "DAGSTER_HOME": str(home / "dagster")}
    if tier in CPU_TIERS:
        defaults |= {**OFFLINE, "OMP_NUM_THREADS": "1"}
    if tier == "cpu":
        defaults |= {"OMP_WAIT_POLICY": "PASSIVE"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    dagster = Path(os.environ["DAGSTER_HOME"])
    os.environ["DAGSTER_HOME"] = str(plain_path(dagster.parent) / dagster.name)
    silence_libraries()


def write_instance_settings(home: Path) -> Path:
    """Write Dagster's settings under `home`, based on docker/ without its server storage; return the file.

    A dagster.yaml that DAGSTER_HOME names outside `home` and that this function did not write is left unchanged: in a
    container it configures Postgres.

    In a new home Dagster's tables are created too, under a lock: two processes that create them at once would conflict.
    """
    default = home / "dagster"
    target = Path(os.environ.get("DAGSTER_HOME", default)) / "dagster.yaml"
    if target.parent.resolve() != default.resolve() and target.exists() and MARK not in target.read_text("utf-8"):
        return target
    settings = yaml.safe_load(_shipped_settings().read_text("utf-8"))
    for section in CONTAINER_SECTIONS:
        settings.pop(section, None)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = f"{MARK}\n{yaml.safe_dump(settings, sort_keys=True)}"
    with FileLock(target.with_suffix(".lock"), timeout=FIRST_START_S):
        is_new = not target.exists()
        if is_new or target.read_bytes() != text.encode():
            temporary = target.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(text, "utf-8")
            temporary.replace(target)
        if is_new:
            _make_tables(target.parent)
    return target


def _make_tables(folder: Path) -> None:
    from dagster import DagsterInstance

    DagsterInstance.from_config(str(folder)).dispose()


def _shipped_settings() -> Path:
    installed = Path(sysconfig.get_path("data")) / "share" / "synth-assets"
    for folder in (PROJECT / "docker", installed):
        if (folder / "dagster.yaml").is_file():
            return folder / "dagster.yaml"
    raise FileNotFoundError(
        f"dagster.yaml is neither in {PROJECT / 'docker'} nor in {installed}: reinstall synth-assets"
    )
