"""MLflow connection of a deployment: addresses, experiments, and a tracker that retries."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import dagster as dg
from filelock import FileLock

from resources.stage_runs import log_or_warn, log_stages
from resources.storage import SynthHome
from synth_assets.llm.quiet import silence_libraries
from synth_assets.registry.experiments import ensure_experiment, model_link, runs_link
from synth_assets.registry.live_training import LiveTraining
from synth_assets.registry.mlflow_tracker import MODEL, MlflowTracker
from synth_assets.registry.relocation import ARTIFACTS, relocate
from synth_assets.registry.retry import with_retries
from synth_assets.registry.stage_runs import StageRun
from synth_assets.storage.plain_path import plain_path
from synth_assets.text.redaction import holds_secret

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

EXPERIMENT = "synth-assets"
STUDY_EXPERIMENT = "synth-assets-efficiency"  # variants of the efficiency study, which are never served
DESCRIPTIONS = {
    EXPERIMENT: "Runs of the synth-assets pipeline: generation, filtering, one run per adapter with its training curve "
    f"and its scores, evaluation and promotion decisions. The adapters are versions of the registered model `{MODEL}`.",
    STUDY_EXPERIMENT: "Variants of the efficiency study: one run per cell and seed. They are never served.",
}
DATABASE = "mlflow.db"  # in SYNTH_HOME
DEFAULT_UI = "http://127.0.0.1:5000"
LOCK_TIMEOUT_S = 300.0
REQUESTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # `with_retries` repeats a request together with its search
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class MlflowTracking(dg.ConfigurableResource):
    """An MLflow server, or a SQLite database and an artifact folder in SYNTH_HOME."""

    home: SynthHome
    tracking_uri: str = ""
    ui_url: str = ""

    def uri(self) -> str:
        """Return the tracking URI.

        Raises:
            ValueError: the URI cannot be parsed, or it is a server's and contains a secret.
        """
        check_tracking_address(self.tracking_uri, "MLFLOW_TRACKING_URI")
        return self.tracking_uri or f"sqlite:///{plain_path(self.home.databases()) / DATABASE}"

    def exists(self) -> bool:
        """Return whether anything can have been logged: a server is set, or the database file exists."""
        return bool(self.tracking_uri) or (Path(self.home.folder).expanduser() / DATABASE).is_file()

    def artifacts(self) -> str:
        """Return the artifact location of new experiments; empty if the server decides."""
        return "" if self.tracking_uri else (self.home.root() / ARTIFACTS).as_uri()

    def initialise(self, experiment: str = EXPERIMENT) -> str:
        """Create the database and the experiment if they are missing, under a lock; return the experiment id."""
        client = self.client()
        with self.lock("mlflow"):
            experiment_id = with_retries(
                lambda: ensure_experiment(client(), experiment, DESCRIPTIONS.get(experiment, ""), self.artifacts()),
                self.uri(),
            )
        self.relocate()
        return experiment_id

    def relocate(self) -> None:
        """Rewrite the artifact addresses in the home's own database if the home was copied or moved."""
        if not self.tracking_uri:
            database, is_writable = self.home.databases() / DATABASE, not self.home.copied_databases
            relocate(database, self.home.root(), (EXPERIMENT, STUDY_EXPERIMENT), self.lock, writable=is_writable)

    def client(self) -> Callable[[], "MlflowClient"]:
        """Return a function that creates a client; the first call creates the database.

        Rewrites the artifact addresses of a copied or moved home first.
        """
        self.relocate()
        silence_libraries()
        for name, value in REQUESTS.items():
            os.environ.setdefault(name, value)
        uri = self.uri()

        def connect() -> "MlflowClient":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # raised by its database library on import
                from mlflow import MlflowClient

                return _without_artifact_cache(MlflowClient(tracking_uri=uri, registry_uri=uri))

        return connect

    def tracker(
        self, context: dg.AssetExecutionContext | None = None, experiment: str = EXPERIMENT, **tags: str
    ) -> MlflowTracker:
        """Return a tracker for an asset.

        Args:
            context: the running asset; its run, key, batch and run tags are added to everything that is logged.
            experiment: name of the experiment.
            tags: additional tags, such as `tier`.
        """
        experiment_id = self.initialise(experiment)  # first: creating a client also creates the database
        return MlflowTracker(
            client=self.client()(), experiment=experiment_id, lock=self.lock, tags={**_context_tags(context), **tags}
        )

    def live_training(self, context: dg.AssetExecutionContext, name: str, tags: Mapping[str, str]) -> LiveTraining:
        """Return the context manager that logs the training of the adapter `name` while it trains."""
        return LiveTraining(lambda: self.tracker(context), name, {"asset": name, **tags})

    @staticmethod
    def log_stages(context: dg.AssetExecutionContext, tracker: MlflowTracker, versions: Mapping[str, str]) -> None:
        """Log a run for each upstream stage that has none yet; a failing MLflow is a warning."""
        log_stages(context, tracker, versions)

    @staticmethod
    def log_stage(context: dg.AssetExecutionContext, tracker: MlflowTracker, stage: StageRun) -> None:
        """Log the run of a stage; a failing MLflow is a warning."""
        log_or_warn(context, tracker, stage)

    def run_url(self, run_id: str, experiment: str = EXPERIMENT) -> str:
        """Return the URL of a run in the MLflow UI."""
        return f"{runs_link(self._ui(), self.initialise(experiment))}/{run_id}"

    def pages(self, ui: str) -> dict[str, str]:
        """Return the addresses of the experiment's runs and of the registered model in the MLflow UI at `ui`."""
        return {"runs": runs_link(ui, self.initialise()), "models": model_link(ui, MODEL)}

    def version_url(self, version: str) -> str:
        """Return the URL of a version of the registered model in the MLflow UI."""
        return f"{model_link(self._ui(), MODEL)}/versions/{version}"

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a named lock against all processes of this home."""
        folder = self.home.databases() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock", timeout=LOCK_TIMEOUT_S):
            yield

    def _ui(self) -> str:
        server = self.tracking_uri if is_server(self.tracking_uri) else ""
        address = self.ui_url or os.environ.get("SYNTH_MLFLOW_UI") or server or DEFAULT_UI
        check_tracking_address(address, "SYNTH_MLFLOW_UI")
        return address.rstrip("/")


def _without_artifact_cache(client: "MlflowClient") -> "MlflowClient":
    """Make a client look up the artifact location of a run at each use.

    MLflow caches it by run id for all clients of a process, and a copied home has the same run ids.
    """
    from mlflow.tracking._tracking_service import utils

    service = client._tracking_client
    look_up = service._get_artifact_repo

    def fresh(resource_id: str, *, resource: Literal["run", "logged_model"] = "run") -> "ArtifactRepository":
        utils._artifact_repos_cache.pop(resource_id, None)
        return look_up(resource_id, resource=resource)

    service._get_artifact_repo = fresh
    return client


def is_server(address: str) -> bool:
    """Return whether a tracking URI is that of an HTTP server."""
    return address.strip().lower().startswith(("http://", "https://"))


def check_tracking_address(address: str, variable: str) -> None:
    """Reject a server URI with anything but scheme, host, port and path, as every link would show it.

    Raises:
        ValueError: names the remedy, without any part of the URI.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        remedy = "percent-encode the special characters of its password, or remove the password and set PGPASSWORD"
        raise ValueError(f"{variable} cannot be parsed as a URL: {remedy}") from None
    if not is_server(address):
        return
    if "@" in parts.netloc or parts.query or parts.fragment or holds_secret(address):
        raise ValueError(
            f"{variable} has credentials, a query or a fragment, which every link would show: keep only scheme, host, "
            "port and path, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )


def _context_tags(context: dg.AssetExecutionContext | None) -> Mapping[str, str]:
    if context is None:
        return {}
    run_tags = context.run.tags
    batch = run_tags.get("batch") or run_tags.get("dagster/partition", "")
    tags = {
        "dagster.run_id": context.run.run_id,
        "dagster.asset_key": ", ".join(sorted(key.to_user_string() for key in context.selected_asset_keys)),
        "dagster.partition": context.partition_key if context.has_partition_key else batch,
        "dagster.job": context.run.job_name,
        "batch": batch,
        "tier": run_tags.get("tier") or os.environ.get("SYNTH_TIER", ""),
        "trigger": run_tags.get("trigger", ""),
    }
    return {name: value for name, value in tags.items() if value}
