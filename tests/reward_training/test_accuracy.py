import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from synth_assets.llm.protocols import Message
from synth_assets.schemas.serialization import from_json, to_json
from synth_assets.schemas.tables import TURN
from synth_assets.stages.reward_training.accuracy import (
    CURRENT,
    LONGER,
    SCORED_PAIRS,
    TRAINED,
    TrainedReward,
    accuracy_of,
    against_longer,
    numbers_of,
    score_pairs,
)
from synth_assets.stages.reward_training.pairs import HELD_OUT, TRAIN
from synth_assets.stats.intervals import wilson_interval


class Exclamations:
    """Rewards exclamation marks, also those of earlier turns."""

    model, revision = "exclamations", "1"

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        assert len(histories) == len(pairs)
        return np.array([float(answer.count("!")) for _, answer in pairs])


def scored(margins: Sequence[float], groups: Sequence[str], longer: Sequence[float] | None = None) -> pl.DataFrame:
    """Held-out pairs with these margins of the trained model."""
    columns = {
        "row_id": [f"r{i}" for i in range(len(margins))],
        "fate": [HELD_OUT] * len(margins),
        "pair_id": [f"p{i}" for i in range(len(margins))],
        "group": groups,
        TRAINED: margins,
        LONGER: longer or margins,
        CURRENT: [None] * len(margins),
    }
    return pl.DataFrame(columns, schema=SCORED_PAIRS)


def test_margins_are_of_the_chosen_answer() -> None:
    pairs = pl.DataFrame(
        {
            "row_id": ["a", "b"],
            "pair_id": ["p", "q"],
            "group": ["g", "h"],
            "split": [TRAIN, HELD_OUT],
            "history": [None, [{"role": "user", "content": "Hi!"}]],
            "instruction": ["Say yes.", "Say no."],
            "chosen": ["Yes!!", "No."],
            "rejected": ["Yes", "No, no!"],
        },
        schema_overrides={"history": pl.List(TURN)},
    )
    table = score_pairs(pairs, Exclamations(), Exclamations())
    assert table.select("fate", TRAINED, LONGER, CURRENT).rows() == [
        (TRAIN, 2.0, 2.0, None),  # 5 characters against 3; the reward in use scores held-out pairs only
        (HELD_OUT, -1.0, -4.0, -1.0),  # 3 against 7
    ]
    assert score_pairs(pairs, Exclamations(), None)[CURRENT].null_count() == 2


def test_a_tie_is_half_right_and_nan_is_wrong() -> None:
    accuracy = accuracy_of(scored([1.0, 0.0, -1.0, math.nan], list("abcd")), HELD_OUT)
    assert (accuracy.value, accuracy.n, accuracy.groups, accuracy.ties) == (1.5 / 4, 4, 4, 1)


def test_the_interval_is_wilsons_where_each_pair_is_a_group() -> None:
    margins = [1.0] * 15 + [-1.0] * 5
    accuracy = accuracy_of(scored(margins, [f"g{i}" for i in range(20)]), HELD_OUT)
    low, high = wilson_interval(15, 20)
    assert accuracy.value == 0.75
    assert accuracy.low == pytest.approx(low, abs=0.05)
    assert accuracy.low <= low
    assert accuracy.high >= high


def test_pairs_of_one_group_widen_the_interval() -> None:
    margins = [1.0] * 15 + [-1.0] * 5
    alone = accuracy_of(scored(margins, [f"g{i}" for i in range(20)]), HELD_OUT)
    grouped = accuracy_of(scored(margins, [f"g{i // 5}" for i in range(20)]), HELD_OUT)
    assert (grouped.value, grouped.groups) == (alone.value, 4)
    assert grouped.low < alone.low


def test_no_scored_pair_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no item has a score"):
        accuracy_of(scored([1.0], ["a"]), HELD_OUT, CURRENT)


def test_the_longer_answer_is_compared_on_the_same_pairs() -> None:
    test = against_longer(scored([1.0] * 10, [f"g{i}" for i in range(10)], [-1.0] * 8 + [1.0] * 2))
    assert (test.n, test.only_first, test.only_second, test.difference) == (10, 0, 8, 0.8)
    assert test.p_value == pytest.approx(2 * 0.5**8)  # exact McNemar of 8 discordant pairs, all on one side


def test_the_record_is_stored_and_gives_its_numbers() -> None:
    table = scored([1.0, 1.0, -1.0], list("abc"))
    accuracy = accuracy_of(table, HELD_OUT)
    record = TrainedReward(
        fingerprint="f",
        path="reward_models/f",
        pairs="manifests/trained_reward_model/v.parquet",
        manifest_sha256="0",
        base="base",
        base_revision="1",
        spec={"rank": 8},
        train=accuracy,
        held_out=accuracy,
        longer=accuracy,
        against_longer=against_longer(table),
    )
    assert from_json(TrainedReward, to_json(record)) == record
    assert record.location == "home:reward_models/f"
    numbers = numbers_of(record)
    assert numbers["held_out_accuracy"] == pytest.approx(2 / 3)
    assert numbers["held_out_n"] == 3
    assert "current_accuracy" not in numbers
