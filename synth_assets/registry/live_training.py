"""The run of a training in MLflow while it trains: step metrics and system metrics, never at the training's expense."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from synth_assets.registry.retry import TrackingError
from synth_assets.registry.run_metrics import log_numbers, log_parameters
from synth_assets.storage.errors import StorageError
from synth_assets.text.redaction import redact

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    from synth_assets.registry.mlflow_tracker import MlflowTracker

FLUSH_EVERY_S = 2.0
SYSTEM_EVERY_S = 5  # MLflow logs none for a training shorter than this
JOIN_S = 40.0  # a request times out after 30 s
WEIGHTS = "weights_sha256"  # tag of a run whose training is complete
FAILURE = "failure"
FAILURE_LENGTH = 2_000

Point = Mapping[str, float]


class LiveTraining:
    """Context manager that opens the run of a training when the training starts, and logs its steps as they come.

    A run that a killed training of the same fingerprint left behind is continued. `MlflowTracker.log_training`
    completes the run; without it, the run is marked as failed or killed. If MLflow fails, one warning is logged and
    the training goes on: `log_training` logs everything again. Draws no random numbers.
    """

    def __init__(self, connect: "Callable[[], MlflowTracker]", name: str, tags: Mapping[str, str]) -> None:
        """Log the training `name` with the tracker that `connect` returns; call `connect` when the training starts."""
        self.name, self.run_id = name, ""
        self._connect, self._tags = connect, tags
        self._tracker: MlflowTracker | None = None
        self._log: _StepLog | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self._failure = ""

    def started(self, fingerprint: str, settings: Mapping[str, Any]) -> None:
        """Open the run, or continue the unfinished one with this fingerprint."""
        from mlflow.exceptions import MlflowException

        try:
            self._tracker = self._connect()
            run = _open_run(self._tracker, self.name, {**self._tags, "fingerprint": fingerprint}, settings)
        except (MlflowException, TrackingError, StorageError, OSError) as error:
            _warn(self.name, error)
            return
        self.run_id = run.info.run_id
        self._log = _StepLog(self._tracker, run, self.name)
        self._monitor = _system_metrics(self._tracker, self.run_id)

    def logged(self, point: Point) -> None:
        """Log the metrics of a step; returns at once."""
        if self._log:
            self._log.points.put(point)

    def failed(self, reason: str) -> None:
        """Mark the run as failed when the context ends."""
        self._failure = reason

    def __enter__(self) -> "LiveTraining":
        """Return the hook of the training."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the remaining steps. Leave the run open if the training is complete."""
        if self._monitor:
            self._monitor.finish()
        if self._log:
            self._log.close()
        if self._tracker and self.run_id and (error or self._failure):
            interrupted = error is not None and not isinstance(error, Exception)
            self._end("KILLED" if interrupted else "FAILED", self._failure or f"{type(error).__name__}: {error}")

    def _end(self, status: str, reason: str) -> None:
        from mlflow.exceptions import MlflowException

        client = self._tracker.client if self._tracker else None
        try:
            if client:
                client.set_tag(self.run_id, FAILURE, redact(reason)[:FAILURE_LENGTH])
                client.set_terminated(self.run_id, status)
        except (MlflowException, OSError) as error:
            _warn(self.name, error)


class _StepLog:
    """Thread that sends queued steps every FLUSH_EVERY_S seconds, until the first failure."""

    def __init__(self, tracker: "MlflowTracker", run: "Run", name: str) -> None:
        self.points: queue.SimpleQueue[Point] = queue.SimpleQueue()
        self._tracker, self._run, self._name = tracker, run, name
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="mlflow-steps", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what is queued and end the thread."""
        self._closing.set()
        self._thread.join(JOIN_S)

    def _send_all(self) -> None:
        from mlflow.exceptions import MlflowException

        is_last = False
        while not is_last:
            is_last = self._closing.wait(FLUSH_EVERY_S)
            points = [self.points.get() for _ in range(self.points.qsize())]
            try:
                if points:
                    log_numbers(self._tracker.client, self._run, {}, points)
            except (MlflowException, OSError) as error:
                _warn(self._name, error)
                return


def open_training(tracker: "MlflowTracker", fingerprint: str) -> "Run | None":
    """Return the newest run of a training with this fingerprint that is not complete, or None."""
    runs = tracker.client.search_runs(
        [tracker.experiment],
        f"tags.fingerprint = '{fingerprint}' and attributes.status != 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    return next((run for run in runs if WEIGHTS not in run.data.tags), None)


def _open_run(tracker: "MlflowTracker", name: str, tags: Mapping[str, str], settings: Mapping[str, Any]) -> "Run":
    client, fingerprint = tracker.client, tags["fingerprint"]
    with tracker.lock(f"adapter-{fingerprint}"):
        run = open_training(tracker, fingerprint)
        if run is None:
            title = run_name(name, fingerprint, tracker.tags)
            run = client.create_run(tracker.experiment, run_name=title, tags={**tracker.tags, **tags})
        elif run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        if FAILURE in run.data.tags:
            client.delete_tag(run.info.run_id, FAILURE)
    log_parameters(client, run, settings)
    return run


def run_name(name: str, fingerprint: str, tags: Mapping[str, str]) -> str:
    """Return the name of a training's run: the adapter, and its batch or the start of its fingerprint."""
    return f"{name}/{tags.get('batch') or fingerprint[:8]}"


def _system_metrics(tracker: "MlflowTracker", run_id: str) -> "SystemMetricsMonitor":
    """Start MLflow's thread that logs the use of processors, memory, disk, network and GPU."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics.system_metrics_monitor").setLevel(logging.ERROR)
    uri = tracker.client.tracking_uri
    monitor = SystemMetricsMonitor(run_id, sampling_interval=SYSTEM_EVERY_S, resume_logging=True, tracking_uri=uri)
    monitor.start()
    return monitor


def _warn(name: str, error: Exception) -> None:
    cause = redact(str(error).strip()).splitlines()[0][:300]
    logging.getLogger(__name__).warning(
        "%s: MLflow shows no progress of this training: %s. The training goes on and is logged when it is complete",
        name,
        cause,
    )
