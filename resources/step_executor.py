"""How steps run: each in a process of its own, started once more where that process was killed."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.execution.context.system import IStepContext
from dagster._core.execution.plan.objects import StepRetryData
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.child_process_executor import ChildProcessCrashException
from dagster._core.executor.multiprocess import MultiprocessExecutor
from dagster_shared.error import SerializableErrorInfo

RESTARTS = 1


class StepExecutor(MultiprocessExecutor):
    """Dagster's own, which knows one retry policy for both: a step that was killed and one that raised.

    What was killed (by hand, or for memory that a neighbour freed since) may well work a second time, and finds its
    finished blocks. What raised would raise again, after the same work.
    """

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> dg.DagsterEvent:
        """The event that follows a step's end without an answer: up for retry, or failed."""
        died = err_info.cls_name == ChildProcessCrashException.__name__
        earlier = known_state.get_retry_state().get_attempt_count(step_context.step.key)
        if died and earlier < RESTARTS:
            return dg.DagsterEvent.step_retry_event(step_context, StepRetryData(error=err_info))
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)


def step_executor(at_once: int, preloaded: Sequence[str]) -> dg.ExecutorDefinition:
    """An executor of at most `at_once` steps, forked from a process that has loaded the modules `preloaded`."""

    @dg.executor(name="steps", config_schema={}, requirements=dg.multiple_process_executor_requirements())
    def steps(_: dg.InitExecutorContext) -> StepExecutor:
        return StepExecutor(
            retries=RetryMode.ENABLED,
            max_concurrent=at_once,
            start_method="forkserver",
            explicit_forkserver_preload=preloaded,
        )

    return steps
