"""A command's view of the deployment: its folders, its Dagster instance, its definitions and stored results."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import dagster as dg

from resources.deployment import home_folder, set_up_process, write_instance_settings
from resources.gpu_slots import free_dead_commands
from resources.hardware import GPU_POOL, Hardware, deployed
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.orchestration.executor import start_fork_server
from synth_assets.orchestration.jobs import preloaded_for
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.schemas.tier import Tier
from synth_assets.storage.errors import StorageError
from synth_assets.storage.read_only import check_databases, copied_databases, unwritable
from synth_assets.storage.stored_files import read_record

R = TypeVar("R")


@dataclass(frozen=True)
class Session:
    """One deployment, as a command sees it. Make it with `open_session`."""

    home: Path
    tier_name: str
    copied_databases: Path | None = None  # of a home that can only be read

    @cached_property
    def hardware(self) -> Hardware:
        """The tier with the models of this deployment."""
        return deployed(self.tier_name)

    @property
    def tier(self) -> Tier:
        """The row of the hardware table, with the models of this deployment."""
        return self.hardware.row()

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's own storage of this deployment."""
        if self.copied_databases is not None and _keeps_dagster(self.home):
            return dg.DagsterInstance.from_config(str(self.copied_databases / "dagster"))
        return dg.DagsterInstance.get()

    def limit_model_steps(self) -> None:
        """Let as many steps at once run a model, over all runs of this instance, as the tier's device can hold.

        Slots that a killed command held are free again.
        """
        self.instance.event_log_storage.set_concurrency_slots(GPU_POOL, self.tier.model_steps)
        free_dead_commands(self.instance)

    def preload_steps(self) -> None:
        """Start the fork server now, so that it imports the libraries of the steps while the run is being planned."""
        start_fork_server(preloaded_for(self.tier.device))

    @property
    def storage(self) -> SynthHome:
        """The home folder, as resources and stages see it."""
        return SynthHome(folder=str(self.home), copied_databases=str(self.copied_databases or ""))

    @cached_property
    def tracking(self) -> MlflowTracking:
        """MLflow of this deployment."""
        return MlflowTracking(home=self.storage, tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", ""))

    @cached_property
    def tracker(self) -> MlflowTracker | None:
        """What MLflow was told; None while nothing was."""
        told = self.tracking.tracking_uri or (self.home / "mlflow.db").is_file()
        return self.tracking.tracker() if told else None

    def record(self, asset: str, kind: type[R]) -> R | None:
        """The stored record of an asset, or None where it was never materialised."""
        path = self.home / "tables" / f"{asset}.json"
        return read_record(kind, path) if path.is_file() else None


def open_session(tier: str | None = None, *, to_read: bool = False) -> Session:
    """Resolve home and tier, set up this process and its children, and write the instance's settings.

    Args:
        tier: row of the hardware table; else SYNTH_TIER, else auto.
        to_read: whether the command only reads; a home that cannot be written is then opened through copies of its
            databases.

    Raises:
        ValueError: no such tier, or the tier asks for a GPU that is not there.
        StorageError: the home cannot be written and the command writes, or one of its databases is torn.
    """
    if tier is not None:
        os.environ["SYNTH_TIER"] = tier
    name = Hardware(tier=os.environ.get("SYNTH_TIER", "auto")).name()
    home = home_folder()
    set_up_process(home, name)
    if home.is_dir() and (path := unwritable(home)) is not None:
        if not to_read:
            raise StorageError(f"{path} cannot be written: make it writable, or set SYNTH_HOME to a folder that is")
        return Session(home, name, copied_databases(home))
    check_databases(home)
    write_instance_settings(home)
    return Session(home, name)


def _keeps_dagster(home: Path) -> bool:
    """Whether Dagster's storage lies in the home, and not where DAGSTER_HOME points elsewhere."""
    return Path(os.environ["DAGSTER_HOME"]).resolve().is_relative_to(home.resolve())
