"""The deployment that a command works on: home folder, hardware tier, Dagster instance, MLflow and stored records."""

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
    """The deployment that a command works on. Create it with `open_session`."""

    home: Path
    tier_name: str
    copied_databases: Path | None = None  # set for a read-only home

    @cached_property
    def hardware(self) -> Hardware:
        """Return the hardware tier with the models of this deployment."""
        return deployed(self.tier_name)

    @property
    def tier(self) -> Tier:
        """Return the limits of the tier, with the models of this deployment."""
        return self.hardware.row()

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """Return the Dagster instance of this deployment."""
        if self.copied_databases is not None and _has_dagster_storage(self.home):
            return dg.DagsterInstance.from_config(str(self.copied_databases / "dagster"))
        return dg.DagsterInstance.get()

    def limit_model_steps(self) -> None:
        """Limit the number of model steps that run at once, over all runs, to the capacity of the tier's device.

        Also frees the slots of killed commands.
        """
        self.instance.event_log_storage.set_concurrency_slots(GPU_POOL, self.tier.model_steps)
        free_dead_commands(self.instance)

    def preload_steps(self) -> None:
        """Start the fork server early, so that it imports the libraries of the steps while the run is planned."""
        start_fork_server(preloaded_for(self.tier.device))

    @property
    def storage(self) -> SynthHome:
        """Return the resource for the home folder."""
        return SynthHome(folder=str(self.home), copied_databases=str(self.copied_databases or ""))

    @cached_property
    def tracking(self) -> MlflowTracking:
        """Return the MLflow resource of this deployment."""
        return MlflowTracking(home=self.storage, tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", ""))

    @property
    def tracker(self) -> MlflowTracker | None:
        """Return the MLflow client; None as long as no tracking store exists, which a server looks up again."""
        return self._tracker if self.tracking.exists() else None

    @cached_property
    def _tracker(self) -> MlflowTracker:
        return self.tracking.tracker()

    def record(self, asset: str, kind: type[R]) -> R | None:
        """Return the stored record of an asset, or None if it was never materialised."""
        path = self.home / "tables" / f"{asset}.json"
        return read_record(kind, path) if path.is_file() else None


def open_session(tier: str | None = None, *, read_only: bool = False) -> Session:
    """Resolve home and tier, set up this process and its children, and write the instance's settings.

    Args:
        tier: name of the hardware tier; None for SYNTH_TIER, or auto.
        read_only: the command does not write. A home that is not writable is then opened through copies of its
            databases.

    Raises:
        ValueError: the tier does not exist, or needs a GPU that this machine lacks.
        StorageError: the command writes and the home is not writable, or a database is damaged.
    """
    if tier is not None:
        os.environ["SYNTH_TIER"] = tier
    name = Hardware(tier=os.environ.get("SYNTH_TIER", "auto")).name()
    home = home_folder()
    set_up_process(home, name)
    if home.is_dir() and (path := unwritable(home)) is not None:
        if not read_only:
            raise StorageError(f"{path} is not writable; change its permissions or set SYNTH_HOME to a writable folder")
        return Session(home, name, copied_databases(home))
    check_databases(home)
    write_instance_settings(home)
    return Session(home, name)


def _has_dagster_storage(home: Path) -> bool:
    """Return True if DAGSTER_HOME lies inside the home."""
    return Path(os.environ["DAGSTER_HOME"]).resolve().is_relative_to(home.resolve())
