"""A command's view of the deployment: its folders, its Dagster instance, its definitions and stored results."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import dagster as dg

from resources.deployment import home_folder, set_up_process, write_instance_settings
from resources.hardware import GPU_POOL, Hardware, deployed
from resources.model_turns import free_dead_commands
from resources.registry import MlflowTracker
from resources.storage import Home
from resources.tracking import MlflowTracking
from synth_assets.jobs import steps_at_once
from synth_assets.records import Tier, from_json

R = TypeVar("R")


@dataclass(frozen=True)
class Session:
    """One deployment, as a command sees it. Make it with `open_session`."""

    home: Path
    tier_name: str

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
        return dg.DagsterInstance.get()

    def limit_model_steps(self) -> None:
        """Let as many steps at once run a model, over all runs of this instance, as the tier's device can hold.

        Slots that a killed command held are free again.
        """
        self.instance.event_log_storage.set_concurrency_slots(GPU_POOL, steps_at_once(self.tier.device))
        free_dead_commands(self.instance)

    @property
    def storage(self) -> Home:
        """The home folder, as resources and stages see it."""
        return Home(folder=str(self.home))

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
        return from_json(kind, path.read_text("utf-8")) if path.is_file() else None


def open_session(tier: str | None = None) -> Session:
    """Resolve home and tier, set up this process and its children, and write the instance's settings.

    Raises:
        ValueError: no such tier, or the tier asks for a GPU that is not there.
    """
    if tier is not None:
        os.environ["SYNTH_TIER"] = tier
    name = Hardware(tier=os.environ.get("SYNTH_TIER", "auto")).name()
    home = home_folder()
    set_up_process(home, name)
    write_instance_settings(home)
    return Session(home, name)
