"""Step executor: run each step in its own forked process, and restart a step once if its process was killed."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from resources.dagster_private import (
    ChildProcessCrashException,
    ExecutionPlan,
    IStepContext,
    KnownExecutionState,
    MultiprocessExecutor,
    PlanOrchestrationContext,
    RetryMode,
    StepRetryData,
    check_captured_interrupt,
)
from resources.deployment import home_folder
from resources.run_processes import PROCESS_TAG, this_process
from synth_assets.orchestration.backfills import mark_partition_done, steps_of_this_run
from synth_assets.orchestration.failures import FAILED, failure_text
from synth_assets.orchestration.run_queue import run_slot, run_title, writes_shared_tables

MAX_RESTARTS = 1


class StepExecutor(MultiprocessExecutor):
    """Multiprocess executor that retries killed steps but not failed ones.

    Dagster has one retry policy for both. A step that was killed, for example by the out-of-memory killer, may succeed
    on a second attempt and resumes from its cached blocks. A step that raised would raise again.
    """

    preloaded: Sequence[str] = ()
    check: Callable[[Mapping[str, Any]], None] | None = None

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Yield the events of the steps. Validates the run config and takes the run slot first."""
        run, instance = plan_context.dagster_run, plan_context.instance
        if self.check is not None:
            self.check(plan_context.run_config)
        instance.add_run_tags(run.run_id, {PROCESS_TAG: this_process()})
        if not writes_shared_tables(run.job_name, run.tags):
            yield from self._execute(plan_context, execution_plan)
            return
        with run_slot(home_folder(), run_title(run), plan_context.log.info, _raise_if_interrupted):
            yield from self._execute(plan_context, steps_of_this_run(plan_context, execution_plan))
            mark_partition_done(instance, run)

    def _execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        start_fork_server(self.preloaded)
        interrupted = False
        try:
            for event in super().execute(plan_context, execution_plan):
                interrupted = interrupted or check_captured_interrupt()  # handling the event clears the flag
                if event.is_step_failure and not interrupted:
                    plan_context.log.error(f"{FAILED}{event.step_key}: {failure_text(event.step_failure_data.error)}")
                yield event
        except (EOFError, ConnectionError) as error:  # the fork server has exited
            if interrupted:
                raise dg.DagsterExecutionInterruptedError from error
            raise

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> dg.DagsterEvent:
        """Return a retry event for the first death of a step process, otherwise the failure event."""
        was_killed = err_info.cls_name == ChildProcessCrashException.__name__
        attempts = known_state.get_retry_state().get_attempt_count(step_context.step.key)
        if was_killed and attempts < MAX_RESTARTS:
            return dg.DagsterEvent.step_retry_event(step_context, StepRetryData(error=err_info))
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)


def _raise_if_interrupted() -> None:
    if check_captured_interrupt():
        raise dg.DagsterExecutionInterruptedError


def start_fork_server(preloaded: Sequence[str]) -> None:
    """Start the process that steps are forked from, with SIGINT blocked until `executor_preload` handles it.

    Otherwise Ctrl-C during the imports would print a traceback.
    """
    resource_tracker.ensure_running()  # start it first, because its start unblocks SIGINT
    forkserver.set_forkserver_preload(list(preloaded))
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the new process inherits the mask
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def step_executor(
    at_once: int, preloaded: Sequence[str], check: Callable[[Mapping[str, Any]], None] | None = None
) -> dg.ExecutorDefinition:
    """Return an executor that runs at most `at_once` steps, forked from a process that has imported `preloaded`.

    `check` receives the run config before the first step, however the run was launched. An exception fails the run.
    """

    @dg.executor(name="steps", config_schema={}, requirements=dg.multiple_process_executor_requirements())
    def steps(_: dg.InitExecutorContext) -> StepExecutor:
        executor = StepExecutor(
            retries=RetryMode.ENABLED,
            max_concurrent=at_once,
            start_method="forkserver",
            explicit_forkserver_preload=preloaded,
        )
        executor.preloaded, executor.check = preloaded, check
        return executor

    return steps
