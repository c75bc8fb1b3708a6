"""One case each side of a threshold, and the readers that checks rest on."""

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from checks.adapters import folder_of, loss_problem, margin_problem, problems, read_weights
from checks.generation import REPLAY_ROWS, replayed_rows
from checks.leakage import normalised, prompt_key, shared
from checks.models import MAX_PROBES, MIN_PREFERRED_RATE, probe_pairs, reward_model_is_sane
from checks.promotion import champion_follows_the_decision
from synth_assets.schemas.records import ModelRecord
from tests.support.world import World


def texts(*instructions: str) -> pl.LazyFrame:
    return pl.LazyFrame({"instruction": instructions, "response": [f"re: {text}" for text in instructions]})


def test_as_many_rows_as_a_replay_has_are_found_and_one_fewer_is_chance() -> None:
    natural = [f"said once {i}" for i in range(10)]
    replay = [f"said twice {i}" for i in range(REPLAY_ROWS)]
    assert replayed_rows(texts(*replay, *natural, *replay), []) == 2
    assert replayed_rows(texts(*replay[1:], *natural, *replay[1:]), []) == 0
    assert replayed_rows(texts(*natural, *replay), [texts("another", *replay)]) == 1
    assert replayed_rows(texts(*natural, *replay), [texts("another", *replay[1:])]) == 0


def test_fewer_rows_than_a_replay_has_are_no_replay() -> None:
    assert replayed_rows(texts("a", "b"), [texts("a", "b")]) == 0
    assert replayed_rows(texts("a", "b").head(0), []) == 0


def test_normalised_texts_are_equal_where_case_spaces_and_form_differ() -> None:
    written = pl.LazyFrame({"text": ["What  is\tit?", "WHAT IS IT?", "\uff37hat is it?", "What is it!", None]})
    assert written.select(normalised(pl.col("text"))).collect()["text"].to_list() == [
        "what is it?",
        "what is it?",
        "what is it?",
        "what is it!",
        "",
    ]


def test_the_same_words_after_other_turns_are_another_prompt() -> None:
    said = [{"role": "user", "content": "Name a fish."}]
    rows = pl.LazyFrame({"history": [[], said, said], "instruction": ["And now?", "And now?", "and NOW?"]})
    keys = rows.select(key=prompt_key(rows)).collect()["key"].to_list()
    assert keys[0] == "and now?"
    assert keys[1] == keys[2] == "name a fish. and now?"


def test_shared_keys_are_those_of_both_tables() -> None:
    first, second = pl.LazyFrame({"key": ["b", "a", "b"]}), pl.LazyFrame({"key": ["b", "c", None]})
    assert shared(first, pl.col("key"), second, pl.col("key")) == ["b"]


def test_a_null_key_is_shared_with_nothing() -> None:
    nothing = pl.LazyFrame({"key": [None, "a"]})
    assert shared(nothing, pl.col("key"), nothing.head(1), pl.col("key")) == []


@pytest.mark.parametrize(
    ("losses", "fell"), [([2.0, 1.9], True), ([2.0, 2.0], False), ([1.0, 1.1], False), ([2.0], False), ([], False)]
)
def test_loss_fell(losses: list[float], fell: bool) -> None:
    assert (loss_problem([{"loss": loss} for loss in losses]) == "") is fell


def test_loss_of_the_last_tenth_counts_and_not_of_the_last_step() -> None:
    # 20 steps: the mean of the first two is 2, of the last two 1.5
    losses = [2.0, 2.0, *[1.0] * 16, 1.0, 2.0]
    assert loss_problem([{"loss": loss} for loss in losses]) == ""


@pytest.mark.parametrize(("margins", "grew"), [([0.0, 0.1], True), ([0.1, 0.0], False), ([], False)])
def test_margin_grew(margins: list[float], grew: bool) -> None:
    assert (margin_problem([{"reward_margin": margin} for margin in margins]) == "") is grew


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))


def test_weights_of_every_precision_are_read(tmp_path: Path) -> None:
    values = np.array([1.5, -2.0], np.float32)
    upper_halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    write_safetensors(
        tmp_path / "adapter_model.safetensors",
        {
            "single": ("F32", [2], values.tobytes()),
            "half": ("F16", [2], values.astype(np.float16).tobytes()),
            "brain": ("BF16", [2], upper_halves.tobytes()),
        },
    )
    assert {name: found.tolist() for name, found in read_weights(tmp_path).items()} == {
        "single": [1.5, -2.0],
        "half": [1.5, -2.0],
        "brain": [1.5, -2.0],
    }


def test_weights_of_no_known_precision_and_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights in"):
        read_weights(tmp_path)
    write_safetensors(tmp_path / "adapter_model.safetensors", {"packed": ("U8", [1], b"\x01")})
    with pytest.raises(ValueError, match=r"packed must be one of .*, got U8"):
        read_weights(tmp_path)


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is no valid safetensors file: "):
        read_weights(tmp_path)


@pytest.mark.parametrize("path", ["", "../outside", "/etc"])
def test_adapter_outside_the_home_is_refused(path: str, world: World) -> None:
    record = replace(world.data["lora_adapter"], path=path)
    with pytest.raises(ValueError, match="has no folder under"):
        folder_of(record, world.home)
    assert "has no folder under" in problems(record, world.home)["adapter_is_complete"]


def test_every_check_of_a_failed_adapter_has_a_reason(world: World) -> None:
    failed = replace(
        world.data["dpo_adapter"], failure="diverged", path="", manifest_sha256="", final_loss=float("nan")
    )
    found = problems(failed, world.home, world.data["lora_adapter"])
    assert found["training_succeeded"] == "diverged"
    assert found["loss_is_finite"] == "the last loss is nan"
    assert found["adapter_is_complete"]


def test_truncated_weights_are_not_complete(world: World) -> None:
    path = world.home / "adapters" / "lora_adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    found = problems(world.data["lora_adapter"], world.home)
    assert found["adapter_is_complete"]


@pytest.mark.parametrize(
    ("action", "version", "follows"),
    [("kept", "2", True), ("promoted", "2", True), ("moved by hand", "3", True), ("promoted", "3", False)],
)
def test_a_champion_recorded_after_a_kill_follows(action: str, version: str, *, follows: bool, world: World) -> None:
    decision = replace(world.data["promotion_decision"], outcome="unchanged", opponent_version="2", clauses=[])
    champion = replace(world.data["champion"], action=action, version=version)
    assert champion_follows_the_decision(champion, decision).passed == follows


def test_probes_leave_out_other_turns_and_equal_responses() -> None:
    said = [{"role": "user", "content": "Hello."}]
    rows = pl.LazyFrame(
        {
            "row_id": ["a", "b", "c"],
            "history": [[], [], said],
            "instruction": ["1 + 1?", "2 + 2?", "And 3?"],
            "response": ["2", "4", "6"],
        }
    )
    own, foreign = probe_pairs(rows)
    assert sorted(own) == [("1 + 1?", "2"), ("2 + 2?", "4")]
    assert sorted(foreign) == [("1 + 1?", "4"), ("2 + 2?", "2")]
    assert probe_pairs(rows.with_columns(response=pl.lit("same"))) == ([], [])


def test_at_most_so_many_probes_are_drawn() -> None:
    count = MAX_PROBES + 10
    rows = pl.LazyFrame({"row_id": [str(i) for i in range(count)], "history": [[]] * count}).with_columns(
        instruction=pl.col("row_id"), response=pl.col("row_id")
    )
    assert len(probe_pairs(rows)[0]) == MAX_PROBES


def test_planted_duplicate_keeps_training_from_starting(
    world: World, all_checks: list[dg.AssetChecksDefinition]
) -> None:  # fault 9
    rows = world.data["sft_dataset"]
    texts = rows["instruction"].to_list()
    texts[-1] = texts[20].upper()
    trained: list[str] = []

    @dg.asset
    def sft_dataset() -> pl.LazyFrame:
        return rows.with_columns(pl.Series("instruction", texts)).lazy()

    @dg.asset
    def benchmark_items() -> pl.LazyFrame:
        return world.data["benchmark_items"].lazy()

    @dg.asset
    def lora_adapter(sft_dataset: pl.LazyFrame) -> None:
        trained.append("lora_adapter")

    key = dg.AssetCheckKey(dg.AssetKey("sft_dataset"), "no_leakage_between_splits")
    asked = [c for c in all_checks if key in c.check_keys]
    result = dg.materialize([sft_dataset, benchmark_items, lora_adapter, *asked], raise_on_error=False)
    [verdict] = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert verdict.check_name == key.name
    assert verdict.metadata["shared_instructions"].value == 1
    assert (verdict.description or "").startswith("shared instructions: 1; none allowed. Materialise")
    assert trained == []


class Longest:
    """Prefers the longer response, whatever was asked."""

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        return np.array([len(response) for _, response in pairs], dtype=np.float64)


class Undecided:
    """Has no number for anything."""

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        return np.full(len(pairs), np.nan)


class Loads:
    """Stands for RewardModels."""

    def __init__(self, model: Longest | Undecided) -> None:
        self.model = model

    def load(self, record: ModelRecord) -> Longest | Undecided:
        return self.model


@pytest.mark.parametrize("model", [Longest(), Undecided()])
def test_reward_model_that_ignores_the_instruction_is_not_sane(model: Longest | Undecided, world: World) -> None:
    check = reward_model_is_sane.op.compute_fn.decorated_fn  # pyright: ignore[reportAttributeAccessIssue]
    result = check(world.data["reward_model"], world.data["sft_dataset"].lazy(), Loads(model))
    assert not result.passed
    assert result.metadata["own_response_preferred_rate"].value < MIN_PREFERRED_RATE
