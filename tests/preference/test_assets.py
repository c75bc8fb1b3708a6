from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from resources.storage import AssetStorage, SynthHome
from synth_assets.llm.protocols import TextGenerator
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import CANDIDATES, PAIRS
from synth_assets.stages.preference.assets import preference_pairs, response_candidates
from synth_assets.storage.manifests import content_hash
from synth_assets.storage.retractions import Recall, add_recalls
from tests.support.fakes import DigitRewards, Echo
from tests.support.preference import ROWS, base_model, recalled_rows, reward_model, sft_dataset


class EchoInference(Inference):
    def load_generator(self, model: ModelRecord, adapter: Path | None = None) -> TextGenerator:
        return Echo("<b>")


@dg.asset
def teacher_model() -> ModelRecord:
    return ModelRecord("teacher", "embedded:teacher", "r1", "embedded", 256)


@dg.asset
def filtered_preferences() -> pl.LazyFrame:
    row = dict.fromkeys(PAIRS.names()) | {"pair_id": "i", "row_id": "i", "group": "import-i", "source": "mine.jsonl"}
    return pl.LazyFrame([row | {"history": [], "instruction": "own", "chosen": "3", "rejected": "4"}], schema=PAIRS)


@pytest.fixture
def home(own_home: Path) -> SynthHome:
    return SynthHome(folder=str(own_home))


SOURCES = (teacher_model, reward_model, base_model, sft_dataset, filtered_preferences, recalled_rows)


def prefer(home: SynthHome, *, broken: bool = False) -> dg.ExecuteInProcessResult:
    hardware = Hardware(tier="cpu")
    return dg.materialize(
        [*SOURCES, response_candidates, preference_pairs],
        resources={
            "home": home,
            "io_manager": AssetStorage(home=home),
            "hardware": hardware,
            "inference": EchoInference(hardware=hardware),
            "rewards": DigitRewards(hardware=hardware, broken=broken),
        },
        run_config={"ops": {"response_candidates": {"config": {"temperatures": [0.5, 1.0, 1.5]}}}},
    )


def test_candidates_and_pairs_are_stored_with_versions_and_manifests(home: SynthHome) -> None:
    result = prefer(home)
    candidates = pl.read_parquet(home.tables() / "response_candidates.parquet")
    pairs = pl.read_parquet(home.tables() / "preference_pairs.parquet")
    assert (candidates.height, candidates.schema) == (3 * ROWS, CANDIDATES)
    assert pairs.schema == PAIRS
    assert set(pairs["source"]) == {"candidates", "mine.jsonl"}
    for name, table in (("response_candidates", candidates), ("preference_pairs", pairs)):
        made = result.asset_materializations_for_node(name)[0]
        version = (made.tags or {})["dagster/data_version"]
        assert version == content_hash(table)
        assert made.metadata["dagster/row_count"].value == table.height
        assert (home.manifests() / name / f"{version}.parquet").exists()


def test_pairs_report_dropped_candidates_and_length_bias(home: SynthHome) -> None:
    made = prefer(home).asset_materializations_for_node("preference_pairs")[0]
    assert {"dropped", "length_difference_characters", "chosen_longer_rate", "validation_rows"} <= made.metadata.keys()
    assert "<b>" not in str(made.metadata["sample"].value)


def test_rewards_that_are_not_finite_leave_only_imported_pairs(home: SynthHome) -> None:  # fault 18
    prefer(home, broken=True)
    pairs = pl.read_parquet(home.tables() / "preference_pairs.parquet")
    assert pairs["source"].to_list() == ["mine.jsonl"]
    assert pl.read_parquet(home.tables() / "response_candidates.parquet")["reward"].is_nan().all()


def test_without_a_pair_nothing_is_stored_and_the_reasons_are_listed(home: SynthHome) -> None:  # fault 8
    add_recalls(home.recalls(), [Recall("i", "recalled", "wrong", "ada", "2026-11-20T12:00:00")])
    with pytest.raises(ValueError, match=r"no preference pair is left(.|\n)*reward_not_finite"):
        prefer(home, broken=True)
    assert not list(home.tables().glob("preference_pairs*"))


def test_recalled_rows_are_in_no_pair(home: SynthHome) -> None:
    prefer(home)
    before = pl.read_parquet(home.tables() / "preference_pairs.parquet")
    taken_back = ["i", before["row_id"][0]]
    add_recalls(home.recalls(), [Recall(row, "recalled", "wrong", "ada", "2026-11-20T12:00:00") for row in taken_back])
    made = prefer(home).asset_materializations_for_node("preference_pairs")[0]
    pairs = pl.read_parquet(home.tables() / "preference_pairs.parquet")
    assert set(before["row_id"]) - set(pairs["row_id"]) == set(taken_back)
    assert made.metadata["recalled_rows"].value == 2
    version = (made.tags or {})["dagster/data_version"]
    fates = pl.read_parquet(home.manifests() / "preference_pairs" / f"{version}.parquet")
    assert set(fates.filter(fate="recalled")["row_id"]) == set(taken_back)
