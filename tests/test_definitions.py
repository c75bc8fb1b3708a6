"""The asset graph: it loads without model libraries, resolves every job and documents every asset and check."""

import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest

from resources.hardware import GPU_POOL
from synth_assets.definitions import build_definitions, deployment_resources
from synth_assets.orchestration.jobs import PIPELINE
from synth_assets.orchestration.sensors import FROM_IMPORTS
from synth_assets.training.methods import OPTIONAL_ADAPTERS

HEAVY = ["torch", "transformers", "peft", "trl", "datasets", "mlflow", "great_expectations", "lm_eval", "matplotlib"]
LOADS_WITHIN_S = 1.5

ASSETS = {
    "models": {"teacher_model", "base_model", "reward_model"},
    "generation": {"raw_instructions", "imported_instructions", "imported_preferences"},
    "benchmarks": {"benchmark_items"},
    "filtering": {
        "recalled_rows",
        "reviewed_rows",
        "filtered_instructions",
        "rejected_instructions",
        "sft_dataset",
        "dataset_card",
        "filtered_preferences",
        "rejected_preferences",
    },
    "preference": {"response_candidates", "preference_pairs", "on_policy_candidates", "on_policy_pairs"},
    "adapters": {
        "lora_adapter",
        "prompt_tuning_adapter",
        "reference_logprobs",
        "dpo_adapter",
        "dpo_control_adapter",
        "rejection_sampling_adapter",
        "orpo_adapter",
        "orpo_control_adapter",
        "kto_adapter",
        "on_policy_reference_logprobs",
        "on_policy_dpo_adapter",
        "on_policy_dpo_control_adapter",
    },
    "evaluation": {"benchmark_scores", "comparison"},
    "promotion": {"promotion_decision", "champion"},
    "efficiency": {"lora_variant", "variant_latencies", "efficiency_frontier"},
    "reward_training": {"trained_reward_model"},
    "export": {"merged_model", "gguf_model", "ollama_model", "hub_release"},
}


@pytest.fixture(scope="module")
def definitions() -> Iterator[dg.Definitions]:
    with dg.DagsterInstance.ephemeral():  # resolving reads state from the last opened instance
        yield build_definitions(deployment_resources())


def test_the_graph_has_the_assets_of_the_design(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    actual: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys():
        actual.setdefault(graph.get(key).group_name, set()).add(key.to_user_string())
    assert actual == ASSETS


def test_every_asset_has_description_owner_and_kind(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    undocumented = [
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if not (graph.get(key).description and graph.get(key).owners and graph.get(key).kinds)
    ]
    assert undocumented == []


def test_every_step_that_runs_a_model_is_in_the_gpu_pool(definitions: dg.Definitions) -> None:
    """Training, generation and scoring are in the pool; resolving models and counting tokens are not.

    A promotion claims a slot by itself only if it runs a model, so that a rollback does not wait for a slot.
    """
    graph = definitions.resolve_asset_graph()
    tools = ("torch", "transformers", "peft", "trl")
    expected = {key for key in graph.get_all_asset_keys() if graph.get(key).kinds & set(tools)}
    in_pool = {key for key in graph.get_all_asset_keys() if graph.get(key).pools == {GPU_POOL}}
    assert in_pool == expected
    assert len(in_pool) == len(ASSETS["adapters"]) + 5 + 3 + 2


def test_every_job_schedule_and_sensor_has_a_description(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    jobs = [definitions.resolve_job_def(name) for name in ("pipeline", "study", "promote", "export_champion")]
    triggers = [*repository.schedule_defs, *repository.sensor_defs, *jobs]
    assert [trigger.name for trigger in triggers if not trigger.description] == []


def test_every_check_has_a_description(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    assert [k.to_user_string() for k in graph.asset_check_keys if not graph.get_check_spec(k).description] == []


@pytest.mark.parametrize("name", ["pipeline", "all_methods", "study", "reward", "promote", "export_champion"])
def test_each_job_resolves(definitions: dg.Definitions, name: str) -> None:
    assert definitions.resolve_job_def(name).name == name


def test_the_pipeline_and_its_sensors_train_no_reward_model(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    asset = dg.AssetKey("trained_reward_model")
    pipeline = definitions.resolve_job_def("pipeline")
    assert asset not in pipeline.asset_layer.executable_asset_keys
    assert asset not in PIPELINE.resolve(graph) | FROM_IMPORTS.resolve(graph)
    assert definitions.resolve_job_def("reward").asset_layer.executable_asset_keys == {asset}


def test_the_pipeline_and_its_sensors_leave_out_optional_adapters(definitions: dg.Definitions) -> None:
    graph, optional = definitions.resolve_asset_graph(), {dg.AssetKey(name) for name in OPTIONAL_ADAPTERS}
    pipeline, everything = (
        definitions.resolve_job_def(name).asset_layer.executable_asset_keys for name in ("pipeline", "all_methods")
    )
    assert optional == {dg.AssetKey(name) for name in ("orpo_adapter", "orpo_control_adapter", "kto_adapter")}
    assert everything - pipeline == optional
    assert not optional & (PIPELINE.resolve(graph) | FROM_IMPORTS.resolve(graph))


def test_the_pipeline_and_its_sensors_export_nothing(definitions: dg.Definitions) -> None:
    graph, exported = definitions.resolve_asset_graph(), {dg.AssetKey(name) for name in ASSETS["export"]}
    pipeline = definitions.resolve_job_def("pipeline").asset_layer.executable_asset_keys
    assert exported.isdisjoint(pipeline | PIPELINE.resolve(graph) | FROM_IMPORTS.resolve(graph))
    assert definitions.resolve_job_def("export_champion").asset_layer.executable_asset_keys == exported


def test_loading_imports_no_model_library_and_is_quick() -> None:
    program = f"""
import sys, time
import dagster
before = time.process_time()
import synth_assets.definitions
seconds = time.process_time() - before
print(seconds, [name for name in {HEAVY} if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
    seconds, loaded = zip(*(output.split(maxsplit=1) for output in outputs), strict=True)
    assert {line.strip() for line in loaded} == {"[]"}
    assert (
        min(map(float, seconds)) < LOADS_WITHIN_S
    )  # the minimum of three, because other processes slow down each of them
