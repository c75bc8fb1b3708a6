"""Contract test: the private parts of Dagster have the names and arguments that the project relies on."""

import ast
import inspect
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest
import yaml

from resources import dagster_private
from resources.deployment import PROJECT

PACKAGES = ("synth_assets", "resources", "checks", "tests", "perf", "docs")
REMEDY = f"Dagster {version('dagster')} differs from the release that resources/dagster_private.py was written for"

ARGUMENTS = {
    "MultiprocessExecutor": ["retries", "max_concurrent", "start_method", "explicit_forkserver_preload"],
    "MultiprocessExecutor.execute": ["plan_context", "execution_plan"],
    "MultiprocessExecutor.log_failure_or_retry_event_after_error": ["step_context", "err_info", "known_state"],
    "StepRetryData.__new__": ["error"],
    "ExecutionPlan.build_subset_plan": ["step_keys_to_execute", "job_def", "resolved_run_config"],
    "ExecutionPlan.get_step_by_key": ["key"],
    "ExecutionStep.get_execution_dependency_keys": [],
    "KnownExecutionState.get_retry_state": [],
    "ResolvedRunConfig.build": ["job_def", "run_config"],
    "InstanceConcurrencyContext": ["instance", "dagster_run"],
    "InstanceConcurrencyContext.claim": ["concurrency_key", "step_key"],
    "InstanceConcurrencyContext.free_step": ["step_key"],
    "NodeHandle.__new__": ["name", "parent"],
    "DefsStateStorage.get": [],
    "check_captured_interrupt": [],
}
VALUES = {
    "BACKFILL_ID_TAG": "dagster/backfill",
    "PARTITION_NAME_TAG": "dagster/partition",
    "RetryMode.ENABLED": "enabled",
    "RunFailureReason.UNEXPECTED_TERMINATION": "UNEXPECTED_TERMINATION",
    "WorkerStatus.FAILED": "FAILED",
    "WorkerStatus.RUNNING": "RUNNING",
}
PROPERTIES = {
    "PlanOrchestrationContext": ["dagster_run", "instance", "job", "log", "run_config"],
    "IStepContext": ["step"],
    "ExecutionPlan": ["step_keys_to_execute"],
}


def part(name: str) -> object:
    """Return a part of the module by its dotted name."""
    value: object = dagster_private
    for attribute in name.split("."):
        assert hasattr(value, attribute), f"{REMEDY}: {name} does not exist"
        value = getattr(value, attribute)
    return value


@pytest.mark.parametrize(("name", "expected"), ARGUMENTS.items())
def test_a_private_callable_takes_the_arguments_that_are_passed(name: str, expected: list[str]) -> None:
    actual = list(inspect.signature(part(name)).parameters)  # pyright: ignore[reportArgumentType]
    missing = [argument for argument in expected if argument not in actual]
    assert missing == [], f"{REMEDY}: {name} takes {', '.join(actual)}; expected {', '.join(expected)}"


@pytest.mark.parametrize(("name", "expected"), VALUES.items())
def test_a_private_constant_has_its_value(name: str, expected: str) -> None:
    value = part(name)
    actual = getattr(value, "value", value)
    assert actual == expected, f"{REMEDY}: {name} is {actual!r}; expected {expected!r}"


@pytest.mark.parametrize(("name", "expected"), PROPERTIES.items())
def test_a_private_class_has_the_attributes_that_are_read(name: str, expected: list[str]) -> None:
    kind = part(name)
    actual = {*dir(kind), *getattr(kind, "_fields", ())}
    missing = sorted(set(expected) - actual)
    assert missing == [], f"{REMEDY}: {name} has no {', '.join(missing)}"


@pytest.mark.parametrize("name", [*dagster_private.STEP_MODULES, dagster_private.DAEMON_MODULE])
def test_a_module_that_is_loaded_by_name_exists(name: str) -> None:
    assert find_spec(name) is not None, f"{REMEDY}: there is no module {name}"


def test_the_classes_that_the_instance_settings_name_exist() -> None:
    settings = yaml.safe_load((PROJECT / "docker" / "dagster.yaml").read_text("utf-8"))
    for section in (part for part in settings.values() if "module" in part):
        module, name = section["module"], section["class"]
        code = compile(f"from {module} import {name}", "docker/dagster.yaml", "exec")
        exec(code, {})  # noqa: S102 - the names come from the repository's own file


def test_a_workspace_file_is_loaded_and_served(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    with dg.instance_for_test() as instance:
        with dagster_private.workspace_process(instance, workspace, "test") as context:
            assert context.version == "test", REMEDY
        with dagster_private.code_servers(instance, workspace) as servers:
            assert list(servers.get_code_server_specs()) == [], REMEDY


def test_a_backfill_has_the_attributes_that_a_run_reads() -> None:
    with dg.instance_for_test() as instance:
        dagster_private.add_partition_backfill(instance, "few", ["a", "b"])
        backfill = instance.get_backfill("few")
    assert backfill is not None, REMEDY
    assert (backfill.partition_names, backfill.is_asset_backfill) == (["a", "b"], False), REMEDY


def test_run_monitoring_can_run_without_a_daemon() -> None:
    with dg.instance_for_test() as instance:
        dagster_private.monitor_runs_once(instance)


def private_imports(path: Path) -> list[str]:
    """Return the modules `dagster._*` that a file imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
    return [name for name in names if name.startswith("dagster._")]


def test_no_other_module_imports_private_parts_of_dagster() -> None:
    module = Path(dagster_private.__file__)
    paths = [path for package in PACKAGES for path in (PROJECT / package).rglob("*.py") if path != module]
    assert private_imports(module), "the search finds the imports of the one module that may have them"
    importing = {str(path.relative_to(PROJECT)): found for path in paths if (found := private_imports(path))}
    assert importing == {}, "import these from resources/dagster_private.py, and add the part to its contract test"
