"""Private parts of Dagster that the project uses.

No other module imports `dagster._*`. The comment on each part says why the public API is not enough. pyproject.toml
bounds the version of Dagster, and tests/resources/test_dagster_private.py fails if a part changes.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

# cli/settings.py: find the assets of an op, to accept asset names in --set. The asset layer takes only node handles.
from dagster._core.definitions.dependency import NodeHandle

# cli/execution.py: the type of `dg.reconstructable(job)`.
from dagster._core.definitions.reconstruct import ReconstructableJob

# Tests: the return type of SensorDefinition.evaluate_tick, which is public.
from dagster._core.definitions.sensor_definition import SensorExecutionData

# cli/execution.py: distinguish a run that a signal stopped from a run that failed.
from dagster._core.events import RunFailureReason

# orchestration/executor.py: argument types of the methods of MultiprocessExecutor that StepExecutor overrides.
from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext

# resources/gpu_slots.py: claim a slot of a pool inside a step or a command. Public pools only hold back whole steps.
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

# orchestration/executor.py: the payload of the event that retries a step.
from dagster._core.execution.plan.objects import StepRetryData

# orchestration/executor.py, backfills.py: select the steps of a run after its launch.
from dagster._core.execution.plan.plan import ExecutionPlan

# orchestration/executor.py: count the earlier attempts of a step.
from dagster._core.execution.plan.state import KnownExecutionState

# orchestration/backfills.py: the dependencies of a step.
from dagster._core.execution.plan.step import ExecutionStep

# orchestration/executor.py: an argument of MultiprocessExecutor.
from dagster._core.execution.retries import RetryMode

# orchestration/executor.py: recognise a step whose process was killed, the only failure that is retried.
from dagster._core.executor.child_process_executor import ChildProcessCrashException

# orchestration/executor.py: the base class. `dg.multiprocess_executor` is public but cannot be extended.
from dagster._core.executor.multiprocess import MultiprocessExecutor

# orchestration/run_launcher.py: the return types of DefaultRunLauncher.check_run_worker_health.
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

# Tests: the state of definitions that integrations store; the project stores none.
from dagster._core.storage.defs_state.base import DefsStateStorage

# orchestration/backfills.py: the tags by which Dagster marks the runs of a backfill.
from dagster._core.storage.tags import BACKFILL_ID_TAG, PARTITION_NAME_TAG

# orchestration/backfills.py: an argument of ExecutionPlan.build_subset_plan.
from dagster._core.system_config.objects import ResolvedRunConfig

# orchestration/executor.py: check for an interrupt while waiting; Dagster captures SIGINT during a run.
from dagster._utils.interrupts import check_captured_interrupt

if TYPE_CHECKING:
    from dagster._core.workspace.context import WorkspaceProcessContext

__all__ = [
    "BACKFILL_ID_TAG",
    "DAEMON_MODULE",
    "PARTITION_NAME_TAG",
    "STEP_MODULES",
    "CheckRunHealthResult",
    "ChildProcessCrashException",
    "CodeLocation",
    "DefsStateStorage",
    "ExecutionPlan",
    "ExecutionStep",
    "IStepContext",
    "InstanceConcurrencyContext",
    "KnownExecutionState",
    "MultiprocessExecutor",
    "NodeHandle",
    "PlanOrchestrationContext",
    "ReconstructableJob",
    "ResolvedRunConfig",
    "RetryMode",
    "RunFailureReason",
    "SensorExecutionData",
    "StepRetryData",
    "WorkerStatus",
    "add_partition_backfill",
    "check_captured_interrupt",
    "code_servers",
    "execute_listed",
    "monitor_runs_once",
    "workspace_process",
]

STEP_MODULES = (
    "dagster._core.instance.factory",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.workspace.autodiscovery",
)
"""Modules that Dagster imports lazily in each step process. The fork server preloads them."""

DAEMON_MODULE = "dagster._daemon"
"""Run as `python -m`: it is the entry point `dagster-daemon` in the interpreter of this process."""


class CodeLocation(NamedTuple):
    """A code location of workspace.yaml: its name, its module, and the name that Dagster gives to its repository."""

    name: str
    module: str
    repository: str = "__repository__"


def workspace_process(
    instance: dg.DagsterInstance, workspace: Path, version: str
) -> "AbstractContextManager[WorkspaceProcessContext]":
    """Load a workspace file for the webserver. `dagster-webserver` has no public way to wrap its ASGI application."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    return WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)]), version=version)


def code_servers(instance: dg.DagsterInstance, workspace: Path) -> AbstractContextManager[Any]:
    """Start the code servers of a workspace file, as `dagster dev` does. `get_code_server_specs()` lists them."""
    from dagster._cli.proxy_server_manager import ProxyServerManager
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    return ProxyServerManager(instance, WorkspaceFileTarget([str(workspace)]), code_server_log_level="WARNING")


def execute_listed(
    job: ReconstructableJob,
    instance: dg.DagsterInstance,
    location: CodeLocation,
    *,
    run_config: Mapping[str, object],
    tags: Mapping[str, str],
    asset_selection: Sequence[dg.AssetKey] | None,
) -> dg.JobExecutionResult:
    """Execute a job as `dg.execute_job` does, as a run of a code location, so that the UI lists it with its job.

    `dg.execute_job` records no code location: the UI leaves such a run out of the pages of the job and of the timeline.
    """
    from dagster._core.execution.api import execute_run
    from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    load_data = job.repository.get_definition().repository_load_data
    job = job.with_repository_load_data(load_data)
    definition = job.get_definition()
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=location.module)
    origin = RemoteRepositoryOrigin(ManagedGrpcPythonEnvCodeLocationOrigin(target, location.name), location.repository)
    run = instance.create_run_for_job(
        job_def=definition,
        run_config=run_config,
        tags={**definition.run_tags, **tags},
        asset_selection=frozenset(asset_selection) if asset_selection else None,
        remote_job_origin=origin.get_job_origin(definition.name),
        job_code_origin=job.get_python_origin(),
        repository_load_data=load_data,
    )
    return execute_run(job, run, instance)


def add_partition_backfill(instance: dg.DagsterInstance, backfill_id: str, partitions: Sequence[str]) -> None:
    """Add a backfill of a job to the instance. For tests: the public way is the UI and a daemon."""
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

    requested = BulkActionStatus.REQUESTED
    backfill = PartitionBackfill(backfill_id, requested, False, {}, time.time(), partition_names=list(partitions))
    instance.add_backfill(backfill)


def monitor_runs_once(instance: dg.DagsterInstance) -> None:
    """Run one iteration of the daemon's run monitoring. For tests, which start no daemon."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import EmptyWorkspaceTarget
    from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
        list(execute_run_monitoring_iteration(workspace, logging.getLogger()))
