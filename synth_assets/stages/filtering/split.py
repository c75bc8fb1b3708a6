"""Train and validation rows, divided so that rows that resemble each other are on the same side."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from synth_assets.schemas.settings import setting
from synth_assets.schemas.tables import SFT_ROWS
from synth_assets.text.near_duplicates import NearDuplicates, components

TRAIN, VALIDATION = "train", "validation"
CHUNK_ROWS = 8192


@dataclass(frozen=True)
class SplitSpec:
    """How rows are divided.

    Groups are made at a lower similarity than duplicates are removed at: what is left above it would be a leak between
    the splits, and below it unrelated tasks of the same form ("What is the capital of ...?") would become one group.
    """

    validation_fraction: float = setting(0.1, "Share of rows for validation, in (0, 1).")
    group_similarity: float = setting(0.6, "Jaccard similarity from which rows share a split, in (0, 1).")
    seed: int = setting(42, "Seed of the split.")

    def __post_init__(self) -> None:
        """Raise ValueError, naming the field, where a share is not between 0 and 1."""
        for name in ("validation_fraction", "group_similarity"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"SplitSpec.{name} is {getattr(self, name)!r}, not between 0 and 1")


def split(rows: pl.LazyFrame, spec: SplitSpec, scratch: Path | None = None) -> pl.LazyFrame:
    """JUDGED rows as SFT_ROWS: each with its near-duplicate group (the lowest row_id in it) and its split.

    Whole groups go to validation in an order drawn from the seed, as long as they fit into the fraction; the result
    does not depend on the order of the rows.

    Args:
        rows: JUDGED, of any length; read in chunks.
        spec: the fraction, the similarity and the seed.
        scratch: folder for temporary files; the system's where None.

    Raises:
        ValueError: there are fewer than two groups, so that one side would be empty.
    """
    ids = rows.select("row_id").collect()["row_id"]
    group = _groups(rows, ids, spec.group_similarity, scratch)
    validation = group.is_in(_validation_groups(group, spec).implode())
    sides = pl.DataFrame({"group": group, "validation": validation}).lazy()
    side = pl.when("validation").then(pl.lit(VALIDATION)).otherwise(pl.lit(TRAIN)).alias("split")
    return pl.concat([rows, sides], how="horizontal").with_columns(side).select(SFT_ROWS.names())


def _groups(rows: pl.LazyFrame, ids: pl.Series, similarity: float, scratch: Path | None) -> pl.Series:
    with NearDuplicates(similarity, scratch) as near:
        for texts in task_texts(rows):
            near.add(texts)
        order = ids.arg_sort().to_numpy()
        rank = np.empty(order.size, np.int64)
        rank[order] = np.arange(order.size)
        first = components(near.pairs(rank), order.size)
    return ids.gather(order[first[rank]]).alias("group")


def task_texts(rows: pl.LazyFrame) -> Iterator[list[str]]:
    """What each row asks, earlier turns included, in chunks."""
    said = pl.col("history").list.eval(pl.element().struct.field("content")).list.join("\n").fill_null("")
    texts = rows.select((said + "\n" + pl.col("instruction")).alias("task"))
    for batch in texts.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True):
        for chunk in batch.iter_slices(CHUNK_ROWS):
            yield chunk["task"].to_list()


def _validation_groups(group: pl.Series, spec: SplitSpec) -> pl.Series:
    """The names of the groups that are held out."""
    sizes = group.value_counts(name="rows").sort("group")
    if sizes.height < 2:
        raise ValueError(f"{len(group)} rows form {sizes.height} groups of similar tasks: training needs at least two")
    draws = pl.Series("draw", [_draw(spec.seed, name) for name in sizes["group"]], dtype=pl.Binary)
    wanted = max(round(spec.validation_fraction * len(group)), 1)
    chosen: list[str] = []
    for name, rows in sizes.with_columns(draws).sort("draw").select("group", "rows").iter_rows():
        if rows <= wanted:
            chosen.append(name)
            wanted -= rows
        if not wanted:
            break
    return pl.Series(chosen or [sizes.sort("rows", "group")["group"][0]], dtype=pl.String)


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
