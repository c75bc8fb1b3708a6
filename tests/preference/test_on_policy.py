"""The candidates and pairs of an on-policy round: written by the adapter that is trained further, and lost with it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from resources.storage import AssetStorage, SynthHome
from synth_assets.llm.protocols import Completion, Sampling, TextGenerator
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.tables import CANDIDATES, PAIRS
from synth_assets.stages.preference.assets import PREFERENCE_ROUND_ASSETS
from synth_assets.storage.manifests import ManifestError, write_manifest
from synth_assets.storage.retractions import Recall, add_recalls
from tests.support.fakes import DigitRewards, Echo
from tests.support.preference import ROWS, base_model, recalled_rows, reward_model, sft_dataset
from tests.support.records import make_adapter

KEY = "a" * 16
POLICY = make_adapter(
    fingerprint=KEY,
    path=f"adapters/{KEY}",
    model_version="1",
    mlflow_run_id="run",
    base="embedded:base",
    base_revision="r1",
)


class Speaker(Echo):
    """An adapter on its base, which answers with its seed."""

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        assert sampling.temperature == 1.0, "a policy speaks as it is"
        return super().generate(prompts, seeds, sampling)


class SpeakerInference(Inference):
    def load_generator(self, model: ModelRecord, adapter: Path | None = None) -> TextGenerator:
        assert adapter is not None
        return Speaker(model=f"{model.name}+{adapter.name}")


@dg.asset
def response_candidates() -> pl.LazyFrame:
    """The teacher's one response to each instruction is better than any digit."""
    rows = [
        dict.fromkeys(CANDIDATES.names())
        | {"candidate_id": f"t{n}", "row_id": f"r{n}", "group": f"g{n}", "split": "train", "history": []}
        | {"instruction": f"q{n}", "response": "best", "finish_reason": "stop", "model": "teacher", "reward": 10.0}
        for n in range(ROWS)
    ]
    return pl.LazyFrame(rows, schema=CANDIDATES)


@pytest.fixture
def home(own_home: Path) -> SynthHome:
    home = SynthHome(folder=str(own_home))
    folder = home.root() / POLICY.path
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}", "utf-8")
    write_manifest(folder, {})
    return home


def prefer(home: SynthHome, policy: AdapterRecord = POLICY) -> dg.ExecuteInProcessResult:
    @dg.asset
    def lora_adapter() -> AdapterRecord:
        return policy

    hardware = Hardware(tier="cpu")
    given = [base_model, reward_model, sft_dataset, response_candidates, recalled_rows, lora_adapter]
    return dg.materialize(
        [*given, *PREFERENCE_ROUND_ASSETS],
        resources={
            "home": home,
            "io_manager": AssetStorage(home=home),
            "inference": SpeakerInference(hardware=hardware),
            "rewards": DigitRewards(hardware=hardware),
        },
    )


def table(home: SynthHome, name: str) -> pl.DataFrame:
    return pl.read_parquet(home.tables() / f"{name}.parquet")


def test_the_policy_answers_train_instructions_and_is_named_by_its_weights(home: SynthHome) -> None:
    materialization = prefer(home).asset_materializations_for_node("on_policy_candidates")[0]
    candidates = table(home, "on_policy_candidates")
    assert (candidates.height, candidates.schema) == (4 * ROWS, CANDIDATES)
    assert set(candidates["model"]) == {f"embedded:base+{KEY}"}
    assert set(candidates["row_id"]) == {f"r{n}" for n in range(ROWS)}
    version = (materialization.tags or {})["dagster/data_version"]
    assert (home.manifests() / "on_policy_candidates" / f"{version}.parquet").exists()
    assert materialization.metadata["new_tokens"].value == 2 * 4 * ROWS


def test_pairs_have_the_best_and_the_worst_of_all_responses(home: SynthHome) -> None:
    materialization = prefer(home).asset_materializations_for_node("on_policy_pairs")[0]
    pairs, candidates = table(home, "on_policy_pairs"), table(home, "on_policy_candidates")
    assert (pairs.height, pairs.schema) == (ROWS, PAIRS)
    assert set(pairs["chosen"]) == {"best"}
    worst = candidates.group_by("row_id").agg(pl.col("reward").min())
    joined = pairs.join(worst, on="row_id")
    assert joined["rejected_reward"].to_list() == joined["reward"].to_list()
    # every chosen text has 4 characters, and every rejected one is a longer number
    assert materialization.metadata["chosen_longer_rate"].value == 0.0


def test_stored_responses_are_reused(home: SynthHome) -> None:
    prefer(home)
    before = table(home, "on_policy_pairs")
    materialization = prefer(home).asset_materializations_for_node("on_policy_candidates")[0]
    assert materialization.metadata["new_tokens"].value == 0
    assert table(home, "on_policy_pairs").equals(before)


def test_new_weights_generate_new_responses(home: SynthHome) -> None:
    prefer(home)
    other = replace(POLICY, fingerprint="b" * 16, path="adapters/" + "b" * 16)
    (home.root() / POLICY.path).rename(home.root() / other.path)
    materialization = prefer(home, other).asset_materializations_for_node("on_policy_candidates")[0]
    assert materialization.metadata["new_tokens"].value == 2 * 4 * ROWS
    assert set(table(home, "on_policy_candidates")["model"]) == {"embedded:base+" + "b" * 16}


def test_a_failed_policy_gives_empty_tables(home: SynthHome) -> None:
    assert prefer(home, replace(POLICY, path="", fingerprint="", failure="the loss was NaN")).success
    assert table(home, "on_policy_candidates").is_empty()
    pairs = table(home, "on_policy_pairs")
    assert (pairs.height, pairs.schema) == (0, PAIRS)


def test_a_damaged_policy_is_an_error(home: SynthHome) -> None:
    (home.root() / POLICY.path / "adapter_config.json").write_text("[]", "utf-8")
    with pytest.raises(ManifestError, match=r"adapter_config\.json"):
        prefer(home)


def test_recalled_rows_are_in_no_pair(home: SynthHome) -> None:
    add_recalls(home.recalls(), [Recall("r3", "recalled", "wrong", "ada", "2026-11-20T12:00:00")])
    materialization = prefer(home).asset_materializations_for_node("on_policy_pairs")[0]
    assert "r3" not in set(table(home, "on_policy_pairs")["row_id"])
    version = (materialization.tags or {})["dagster/data_version"]
    fates = pl.read_parquet(home.manifests() / "on_policy_pairs" / f"{version}.parquet")
    assert fates.filter(fate="recalled")["row_id"].to_list() == ["r3"]
