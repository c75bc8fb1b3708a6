"""Split preference pairs by groups of similar instructions into those to train on and those to measure on."""

import hashlib

import polars as pl

TRAIN, HELD_OUT = "train", "held_out"
MIN_PAIRS = 50  # 10 held out; if 9 of 10 are right, the Wilson interval of the accuracy starts at .60
REMEDY = (
    "Import pairs with `synth import FILE --format preference`, then filter them with "
    "`synth run --select '+key:filtered_preferences'`"
)


class TooFewPairsError(ValueError):
    """There are not enough pairs to train and measure a reward model; the message names the remedy."""


def split_pairs(pairs: pl.DataFrame, held_out_share: float, seed: int) -> pl.DataFrame:
    """Return PAIRS with `split` TRAIN or HELD_OUT, the same for all pairs of a group.

    Whole groups are held out in a seeded random order, as long as they fit into the share. The result does not depend
    on the order of the rows.

    Raises:
        TooFewPairsError: fewer than MIN_PAIRS pairs, or one of the two parts would be empty.
        ValueError: the share is not in (0, 1).
    """
    if not 0 < held_out_share < 1:
        raise ValueError(f"held_out_share must be in (0, 1), got {held_out_share}")
    if pairs.height < MIN_PAIRS:
        raise TooFewPairsError(f"a reward model needs at least {MIN_PAIRS} pairs, got {pairs.height}. {REMEDY}")
    held_out = _held_out_groups(pairs["group"], held_out_share, seed)
    if not held_out:
        raise TooFewPairsError(
            f"every group of similar instructions has more than {held_out_share:.0%} of the {pairs.height} pairs, so "
            f"none can be held out. {REMEDY}"
        )
    side = pl.when(pl.col("group").is_in(held_out)).then(pl.lit(HELD_OUT)).otherwise(pl.lit(TRAIN))
    return pairs.with_columns(split=side).sort("pair_id")


def without_recalled(pairs: pl.DataFrame, recalled: pl.DataFrame) -> pl.DataFrame:
    """Return PAIRS without those of recalled rows, in order."""
    return pairs.join(recalled.select("row_id"), on="row_id", how="anti", maintain_order="left")


def training_pairs(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs to train on of `split_pairs`, without their split."""
    return pairs.filter(split=TRAIN).drop("split")


def _held_out_groups(groups: pl.Series, share: float, seed: int) -> list[str]:
    sizes = groups.value_counts(name="pairs").sort("group")
    remaining = max(round(share * len(groups)), 1)
    chosen: list[str] = []
    for name, count in sorted(sizes.iter_rows(), key=lambda row: _draw(seed, row[0])):
        if count <= remaining:
            chosen.append(name)
            remaining -= count
    return chosen


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
