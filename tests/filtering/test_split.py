from collections.abc import Callable

import polars as pl
import pytest

from synth_assets.schemas.tables import JUDGED, SFT_ROWS
from synth_assets.stages.filtering.split import SplitSpec, split

Rows = Callable[..., pl.DataFrame]


def judged_rows(rows_of: Rows, *instructions: str) -> pl.DataFrame:
    return (
        rows_of(*((text, "An answer.") for text in instructions)).with_columns(score=pl.lit(1.0)).select(JUDGED.names())
    )


def families(count: int) -> list[str]:
    """Pairs of instructions: two of one number share seven of nine shingles."""
    stems = [" ".join(f"s{family}w{word}" for word in range(11)) for family in range(count)]
    return [f"{stem} {end}" for stem in stems for end in ("one", "two")]


def test_each_group_is_in_one_split(rows_of: Rows) -> None:
    table = split(judged_rows(rows_of, *families(50)).lazy(), SplitSpec()).collect()
    assert table.schema == SFT_ROWS
    assert table["split"].value_counts(sort=True).rows() == [("train", 90), ("validation", 10)]
    assert table.group_by("group").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 50


def test_a_group_is_named_by_its_lowest_row(rows_of: Rows) -> None:
    table = split(judged_rows(rows_of, *families(3)).reverse().lazy(), SplitSpec()).collect()
    assert table.sort("row_id")["group"].to_list() == ["r000", "r000", "r002", "r002", "r004", "r004"]


def test_the_split_does_not_depend_on_the_order_of_rows(rows_of: Rows) -> None:
    rows = judged_rows(rows_of, *families(40))
    first = split(rows.lazy(), SplitSpec()).collect()
    other = split(rows.sample(fraction=1, shuffle=True, seed=5).lazy(), SplitSpec()).collect()
    assert other.sort("row_id").equals(first.sort("row_id"))


def test_another_seed_draws_another_validation(rows_of: Rows) -> None:
    rows = judged_rows(rows_of, *families(40)).lazy()
    sides = [split(rows, SplitSpec(seed=seed)).collect()["split"].to_list() for seed in (1, 2)]
    assert sides[0] != sides[1]


def test_one_large_group_leaves_a_small_one_for_validation(rows_of: Rows) -> None:
    stem = " ".join(f"w{number}" for number in range(20))
    table = split(
        judged_rows(rows_of, *(f"{stem} {n}" for n in range(8)), "Name a bird.").lazy(), SplitSpec()
    ).collect()
    assert table.filter(split="validation")["instruction"].to_list() == ["Name a bird."]


def test_one_group_cannot_be_split(rows_of: Rows) -> None:
    with pytest.raises(ValueError, match="at least 2 groups of similar tasks, got 1 of 1 rows"):
        split(judged_rows(rows_of, "Name a bird.").lazy(), SplitSpec())


@pytest.mark.parametrize("field", ["validation_fraction", "group_similarity"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_shares_are_between_0_and_1(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"SplitSpec.{field}"):
        SplitSpec(**{field: value})  # pyright: ignore[reportArgumentType]
