import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from resources.storage import AssetStorage, SynthHome
from synth_assets.llm.protocols import TextGenerator
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import INSTRUCTIONS, PAIRS
from synth_assets.stages.generation.assets import imports, raw_instructions
from synth_assets.storage.manifests import content_hash
from synth_assets.storage.scratch import CREATION_LOCK
from tests.support.fakes import Echo

BATCH = "2026-W47"
RECORD = ModelRecord("teacher", "embedded:teacher", "r1", "embedded", 256)
ROWS = {"instruction": "Add 1 and 2.", "response": "3"}
PAIR = {"prompt": "Add 1 and 2.", "chosen": "3", "rejected": "4"}


class EchoInference(Inference):
    """The inference resource with an echo of HTML and ANSI codes in place of a model."""

    def load_generator(self, model: ModelRecord, adapter: Path | None = None) -> TextGenerator:
        return Echo("<img src=x>\x1b[31m")


@dg.asset
def teacher_model() -> ModelRecord:
    return RECORD


@pytest.fixture
def home(own_home: Path) -> SynthHome:
    return SynthHome(folder=str(own_home))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("batches", [BATCH])
        yield instance


def generate(home: SynthHome, instance: dg.DagsterInstance, **config: object) -> dg.AssetMaterialization:
    hardware = Hardware(tier="cpu")
    result = dg.materialize(
        [teacher_model, raw_instructions],
        partition_key=BATCH,
        instance=instance,
        resources={
            "home": home,
            "io_manager": AssetStorage(home=home),
            "hardware": hardware,
            "inference": EchoInference(hardware=hardware),
        },
        run_config={"ops": {"raw_instructions": {"config": config}}},
    )
    return result.asset_materializations_for_node("raw_instructions")[0]


def read_imports(home: SynthHome, instance: dg.DagsterInstance) -> dict[str, dg.AssetMaterialization]:
    resources = {"home": home, "io_manager": AssetStorage(home=home)}
    made = dg.materialize([imports], instance=instance, resources=resources).get_asset_materialization_events()
    found = [event.materialization for event in made]
    return {m.asset_key.to_user_string(): m for m in found}


def version(made: dg.AssetMaterialization) -> str:
    return (made.tags or {})["dagster/data_version"]


def test_a_batch_is_stored_with_its_version_and_facts(home: SynthHome, instance: dg.DagsterInstance) -> None:
    made = generate(home, instance, samples=70)
    stored = pl.read_parquet(home.tables() / "raw_instructions" / f"{BATCH}.parquet")
    assert (stored.height, stored.schema) == (70, INSTRUCTIONS)
    assert version(made) == content_hash(stored)
    assert made.metadata["dagster/row_count"].value == 70
    assert made.metadata["distinct_instructions_rate"].value == 1.0
    assert made.metadata["new_tokens"].value == 2 * 2 * 128  # two blocks, instruction and answer of two tokens each
    assert json.loads(json.dumps(made.metadata["spec"].value))["samples"] == 70


def facts(made: dg.AssetMaterialization, name: str) -> dict[str, Any]:
    return json.loads(json.dumps(made.metadata[name].value))


def test_the_mix_of_a_batch_is_in_its_metadata(home: SynthHome, instance: dg.DagsterInstance) -> None:
    config = {"samples": 70, "topics": {"plain": ""}, "turns": 2, "turn_weights": [1.0, 0.0]}
    made = generate(home, instance, **config)
    assert facts(made, "finish_reasons")["response_finish_reason"] == {"stop": 70}
    assert facts(made, "tokens")["response_tokens"] == {"mean": 2.0, "max": 2, "all": 140}
    assert facts(made, "topics") == {"plain": 70}
    assert facts(made, "exchanges") == {"1": 70}


def test_speed_is_reported_as_a_share_of_the_roofline(home: SynthHome, instance: dg.DagsterInstance) -> None:
    made = generate(home, instance, samples=5)
    bound = facts(made, "roofline")
    weight_bytes = 984_192 * 4  # parameters of the shipped teacher, float32
    assert (bound["kind"], bound["bandwidth_kind"], bound["weight_bytes"]) == ("derived", "measured", weight_bytes)
    assert bound["tokens_per_s_at_most"] == pytest.approx(64 * bound["bandwidth_gb_s"] * 1e9 / weight_bytes, rel=1e-3)
    share = made.metadata["tokens_per_s"].value / bound["tokens_per_s_at_most"]  # pyright: ignore
    assert made.metadata["roofline_share"].value == pytest.approx(share, rel=1e-3)


def test_samples_in_metadata_are_escaped_and_small(home: SynthHome, instance: dg.DagsterInstance) -> None:  # fault 12
    sample = str(generate(home, instance, samples=5).metadata["sample"].value)
    assert "<img" not in sample
    assert "\x1b" not in sample
    assert len(sample.encode()) < 4_000


def test_a_rerun_keeps_the_version_and_makes_no_token(
    home: SynthHome, instance: dg.DagsterInstance
) -> None:  # fault 26
    first, second = (generate(home, instance, samples=70) for _ in range(2))
    assert version(first) == version(second)
    assert second.metadata["new_tokens"].value == 0
    assert "tokens_per_s" not in second.metadata


def test_the_rows_leave_a_manifest(home: SynthHome, instance: dg.DagsterInstance) -> None:
    made = generate(home, instance, samples=70)
    manifest = pl.read_parquet(home.manifests() / "raw_instructions" / f"{version(made)}.parquet")
    assert (manifest.height, manifest["fate"].unique().to_list()) == (70, ["kept"])


def test_nothing_imported_gives_empty_tables(home: SynthHome, instance: dg.DagsterInstance) -> None:
    made = read_imports(home, instance)
    assert made["imported_instructions"].metadata["dagster/row_count"].value == 0
    assert pl.read_parquet(home.tables() / "imported_instructions.parquet").schema == INSTRUCTIONS
    assert pl.read_parquet(home.tables() / "imported_preferences.parquet").schema == PAIRS


def test_each_file_goes_to_its_table_and_reports(home: SynthHome, instance: dg.DagsterInstance) -> None:
    (home.imports() / "a.jsonl").write_text(json.dumps(ROWS) + "\nno json\n")
    (home.imports() / "b.json").write_text(json.dumps([PAIR, PAIR]))
    made = read_imports(home, instance)
    facts = made["imported_instructions"].metadata
    assert (facts["dagster/row_count"].value, facts["files"].value, facts["rejected"].value) == (1, 2, 1)
    reports = facts["reports"].value
    assert reports["a.jsonl"]["lines"] == {"not_json": [2]}  # pyright: ignore[reportIndexIssue, reportCallIssue, reportArgumentType, reportOptionalSubscript]
    assert pl.read_parquet(home.tables() / "imported_instructions.parquet")["instruction"].to_list() == ["Add 1 and 2."]
    assert pl.read_parquet(home.tables() / "imported_preferences.parquet").height == 2
    assert [path.name for path in home.shards("imports").iterdir()] == [CREATION_LOCK]


def test_an_unreadable_import_fails_by_name(home: SynthHome, instance: dg.DagsterInstance) -> None:
    (home.imports() / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"torn\.parquet cannot be read"):
        read_imports(home, instance)
    assert not (home.tables() / "imported_instructions.parquet").exists()
    assert [path.name for path in home.shards("imports").iterdir()] == [CREATION_LOCK]
