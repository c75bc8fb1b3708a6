"""Properties of the split: groups stay together, and the order of the rows decides nothing."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_assets.schemas.tables import JUDGED
from synth_assets.stages.filtering.split import SplitSpec, split

WORDS = st.sampled_from(
    ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "islet", "jetty", "knoll", "ledge"]
)
TASKS = st.lists(st.lists(WORDS, min_size=6, max_size=9).map(" ".join), min_size=12, max_size=24, unique=True)


def judged(tasks: list[str]) -> pl.DataFrame:
    columns = {
        "row_id": [f"{index:03}" for index in range(len(tasks))],
        "instruction": tasks,
        "history": [[]] * len(tasks),
    }
    table = pl.DataFrame(columns, schema_overrides={"history": JUDGED["history"]})
    rest = [pl.lit("An answer.").alias("response"), pl.lit(1.0).alias("score")]
    table = table.with_columns(rest)
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in JUDGED.items() if name not in table.columns]
    return table.with_columns(missing).select(JUDGED.names())


@settings(max_examples=20)
@given(TASKS, st.integers(0, 3), st.randoms())
def test_groups_stay_together_in_any_order(tasks: list[str], seed: int, random: object) -> None:
    spec = SplitSpec(validation_fraction=0.3, seed=seed)
    rows = judged(tasks)
    order = list(range(len(tasks)))
    random.shuffle(order)  # type: ignore[attr-defined]
    try:
        sides = split(rows.lazy(), spec).collect()
    except ValueError:
        return  # fewer than two groups
    assert sides.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    assert 0 < (sides["split"] == "validation").mean() <= 0.5  # type: ignore[operator]
    shuffled = split(rows[order].lazy(), spec).collect()
    assert shuffled.sort("row_id").equals(sides.sort("row_id"))
