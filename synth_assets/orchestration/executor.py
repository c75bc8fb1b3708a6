"""How steps run: each in a process of its own, started once more where that process was killed."""

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
from synth_assets.orchestration.backfills import mark_partition_made, steps_of_this_run
from synth_assets.orchestration.failures import FAILED, failure_text
from synth_assets.orchestration.run_queue import run_slot, run_title, writes_shared_tables

RESTARTS = 1


class StepExecutor(MultiprocessExecutor):
    """Dagster's own, which knows one retry policy for both: a step that was killed and one that raised.

    What was killed (by hand, or for memory that a neighbour freed since) may well work a second time, and finds its
    finished blocks. What raised would raise again, after the same work.
    """

    preloaded: Sequence[str] = ()
    check: Callable[[Mapping[str, Any]], None] | None = None

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """The events of the steps; where Ctrl-C ended the fork server while it loaded, the run was interrupted."""
        run, instance = plan_context.dagster_run, plan_context.instance
        if self.check is not None:
            self.check(plan_context.run_config)
        instance.add_run_tags(run.run_id, {PROCESS_TAG: this_process()})
        if not writes_shared_tables(run.job_name, run.tags):
            yield from self._execute(plan_context, execution_plan)
            return
        with run_slot(home_folder(), run_title(run), plan_context.log.info, _stop_where_interrupted):
            yield from self._execute(plan_context, steps_of_this_run(plan_context, execution_plan))
            mark_partition_made(instance, run)

    def _execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        start_fork_server(self.preloaded)
        interrupted = False
        try:
            for event in super().execute(plan_context, execution_plan):
                interrupted = interrupted or check_captured_interrupt()  # Dagster forgets it while it takes the event
                if event.is_step_failure and not interrupted:
                    plan_context.log.error(f"{FAILED}{event.step_key}: {failure_text(event.step_failure_data.error)}")
                yield event
        except (EOFError, ConnectionError) as error:  # of a fork server that is gone
            if interrupted:
                raise dg.DagsterExecutionInterruptedError from error
            raise

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> dg.DagsterEvent:
        """The event that follows a step's end without an answer: up for retry, or failed."""
        died = err_info.cls_name == ChildProcessCrashException.__name__
        earlier = known_state.get_retry_state().get_attempt_count(step_context.step.key)
        if died and earlier < RESTARTS:
            return dg.DagsterEvent.step_retry_event(step_context, StepRetryData(error=err_info))
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)


def _stop_where_interrupted() -> None:
    if check_captured_interrupt():
        raise dg.DagsterExecutionInterruptedError


def start_fork_server(preloaded: Sequence[str]) -> None:
    """Start the process that steps are forked from, ignoring Ctrl-C until `executor_preload` handles it.

    Python's own answer would be to print in which import of which library it was.
    """
    resource_tracker.ensure_running()  # here, because it unblocks the signal where it starts
    forkserver.set_forkserver_preload(list(preloaded))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the new process inherits it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def step_executor(
    at_once: int, preloaded: Sequence[str], check: Callable[[Mapping[str, Any]], None] | None = None
) -> dg.ExecutorDefinition:
    """An executor of at most `at_once` steps, forked from a process that has loaded the modules `preloaded`.

    Before the first step `check` is given the run's config, whoever launched it; what it raises fails the run.
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
