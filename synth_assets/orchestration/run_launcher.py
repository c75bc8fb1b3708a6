"""Run launcher for one machine that detects killed run processes."""

from dagster import DagsterRun, DefaultRunLauncher

from resources.dagster_private import CheckRunHealthResult, WorkerStatus
from resources.run_processes import GONE, is_gone


class WatchedRunLauncher(DefaultRunLauncher):
    """DefaultRunLauncher with health checks, so that run monitoring closes a killed run within seconds."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return True, so that run monitoring checks every started run."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return FAILED if the process in the run's tags has exited, otherwise RUNNING."""
        return (
            CheckRunHealthResult(WorkerStatus.FAILED, GONE)
            if is_gone(run)
            else CheckRunHealthResult(WorkerStatus.RUNNING)
        )
