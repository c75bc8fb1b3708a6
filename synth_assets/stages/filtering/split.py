"""Split rows into train and validation by groups of similar tasks."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.schemas.tables import SFT_ROWS
from synth_assets.text.near_duplicates import NearDuplicates, components

TRAIN, VALIDATION = "train", "validation"
CHUNK_ROWS = 8192


@dataclass(frozen=True)
class SplitSpec:
    """Settings of the split.

    The similarity of groups is lower than that of duplicates: similar rows that remain would leak between the splits.
    At an even lower value, unrelated tasks of the same form ("What is the capital of ...?") would become one group.
    """

    validation_fraction: float = setting(0.1, "Share of rows for validation, in (0, 1).")
    group_similarity: float = setting(0.6, "Jaccard similarity from which rows share a split, in (0, 1).")
    seed: int = setting(42, "Seed of the split.")

    def __post_init__(self) -> None:
        """Raise ValueError with the name of a field that is out of range."""
        for name in ("validation_fraction", "group_similarity"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"SplitSpec.{name} must be in (0, 1), got {getattr(self, name)!r}")


SPLIT_CODE_VERSION = fingerprint(SplitSpec())


def split(rows: pl.LazyFrame, spec: SplitSpec, scratch: Path | None = None) -> pl.LazyFrame:
    """Return JUDGED rows as SFT_ROWS, each with its group of similar rows (named by the lowest row_id) and its split.

    Whole groups are assigned to validation in a seeded random order, as long as they fit into the fraction. The result
    does not depend on the order of the rows.

    Args:
        rows: JUDGED, of any length; read in chunks.
        spec: fraction, similarity and seed.
        scratch: folder for temporary files; the system's by default.

    Raises:
        ValueError: fewer than two groups, so that one split would be empty.
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
    """Yield the task of each row, earlier turns included, in chunks."""
    turns = pl.col("history").list.eval(pl.element().struct.field("content")).list.join("\n").fill_null("")
    texts = rows.select((turns + "\n" + pl.col("instruction")).alias("task"))
    for batch in texts.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True):
        for chunk in batch.iter_slices(CHUNK_ROWS):
            yield chunk["task"].to_list()


def _validation_groups(group: pl.Series, spec: SplitSpec) -> pl.Series:
    """Return the names of the validation groups."""
    sizes = group.value_counts(name="rows").sort("group")
    if sizes.height < 2:
        raise ValueError(f"training needs at least 2 groups of similar tasks, got {sizes.height} of {len(group)} rows")
    draws = pl.Series("draw", [_draw(spec.seed, name) for name in sizes["group"]], dtype=pl.Binary)
    remaining = max(round(spec.validation_fraction * len(group)), 1)
    chosen: list[str] = []
    for name, rows in sizes.with_columns(draws).sort("draw").select("group", "rows").iter_rows():
        if rows <= remaining:
            chosen.append(name)
            remaining -= rows
        if not remaining:
            break
    return pl.Series(chosen or [sizes.sort("rows", "group")["group"][0]], dtype=pl.String)


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
