import polars as pl
import pytest

from synth_assets.stages.reward_training.pairs import HELD_OUT, MIN_PAIRS, TRAIN, TooFewPairsError, split_pairs


def pairs_of(*sizes: int) -> pl.DataFrame:
    """Pairs of one group per size."""
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    return pl.DataFrame({"pair_id": [f"p{number:03}" for number in range(len(groups))], "group": groups})


def test_a_fifth_is_held_out_in_whole_groups() -> None:
    pairs = split_pairs(pairs_of(*[3] * 20), 0.2, seed=1)
    assert pairs["split"].value_counts().sort("split").rows() == [(HELD_OUT, 12), (TRAIN, 48)]
    assert pairs.group_by("group").agg(pl.col("split").n_unique())["split"].unique().to_list() == [1]


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    pairs = pairs_of(*[1] * 60)
    first = split_pairs(pairs, 0.2, seed=1)
    assert split_pairs(pairs.reverse(), 0.2, seed=1).equals(first)
    assert not split_pairs(pairs, 0.2, seed=2).equals(first)


def test_a_group_above_the_share_is_trained_on() -> None:
    pairs = split_pairs(pairs_of(50, *[1] * 10), 0.2, seed=1)
    assert pairs.filter(group="g0")["split"].unique().to_list() == [TRAIN]
    assert pairs.filter(split=HELD_OUT).height == 10


def test_too_few_pairs_name_the_remedy() -> None:
    with pytest.raises(TooFewPairsError, match=r"at least 50 pairs, got 49\. Import pairs with `synth import FILE"):
        split_pairs(pairs_of(*[1] * (MIN_PAIRS - 1)), 0.2, seed=1)
    assert split_pairs(pairs_of(*[1] * MIN_PAIRS), 0.2, seed=1).height == MIN_PAIRS


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(TooFewPairsError, match=r"more than 20% of the 60 pairs.*synth import"):
        split_pairs(pairs_of(60), 0.2, seed=1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_must_leave_two_parts(share: float) -> None:
    with pytest.raises(ValueError, match="held_out_share"):
        split_pairs(pairs_of(*[1] * 60), share, seed=1)
