"""Dagster's run launcher of one machine, which also knows when the process of a run was killed."""

from dagster import DagsterRun, DefaultRunLauncher

from resources.dagster_private import CheckRunHealthResult, WorkerStatus
from resources.run_processes import GONE, is_gone


class WatchedRunLauncher(DefaultRunLauncher):
    """Let run monitoring see a dead run within seconds, so that it does not block the queue for ever."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return True: run monitoring asks for each run that has started."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return FAILED where the process in the run's tags is gone, else RUNNING."""
        return (
            CheckRunHealthResult(WorkerStatus.FAILED, GONE)
            if is_gone(run)
            else CheckRunHealthResult(WorkerStatus.RUNNING)
        )
