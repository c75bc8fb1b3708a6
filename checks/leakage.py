"""Texts that occur on both sides of a line that nothing may cross."""

from collections.abc import Mapping, Sequence

import dagster as dg
import polars as pl

from synth_assets.text import normalise

SHOWN_TEXTS = 5
SHOWN_CHARACTERS = 200


def normalised(text: pl.Expr) -> pl.Expr:
    """`text` as duplicates are recognised: folded, in lower case, with single spaces; nothing where it is null."""
    return text.map_batches(_normalise, return_dtype=pl.String)


def _normalise(texts: pl.Series) -> pl.Series:
    return pl.Series([normalise(text or "") for text in texts], dtype=pl.String)


def prompt_key(table: pl.LazyFrame) -> pl.Expr:
    """The normalised prompt of a row: its earlier turns, where the table has them, and its instruction."""
    if "history" not in table.collect_schema():
        return normalised(pl.col("instruction"))
    turns = pl.col("history").list.eval(pl.element().struct.field("content")).list.join("\n", ignore_nulls=True)
    return normalised(pl.concat_str(turns.fill_null(""), pl.col("instruction"), separator="\n", ignore_nulls=True))


def shared(first: pl.LazyFrame, first_key: pl.Expr, second: pl.LazyFrame, second_key: pl.Expr) -> list[str]:
    """The keys that occur in both tables, sorted."""
    left = first.select(key=first_key).unique()
    right = second.select(key=second_key).unique()
    return left.join(right, on="key", how="semi").sort("key").collect()["key"].to_list()


def leaks_between_splits(table: pl.LazyFrame, key: pl.Expr, line: Sequence[str]) -> list[str]:
    """The keys that occur on both sides of `line`, which names two splits."""
    first, second = (table.filter(pl.col("split") == split) for split in line)
    return shared(first, key, second, key)


def leakage_result(leaks: Mapping[str, list[str]]) -> dg.AssetCheckResult:
    """Passed where no kind of leak has any text; shows how many there are of each kind, and some."""
    metadata: dict[str, dg.MetadataValue] = {kind: dg.MetadataValue.int(len(texts)) for kind, texts in leaks.items()}
    if found := [text[:SHOWN_CHARACTERS] for texts in leaks.values() for text in texts]:
        metadata["examples"] = dg.MetadataValue.json(found[:SHOWN_TEXTS])
    told = ", ".join(f"{kind.replace('_', ' ')}: {len(texts)}" for kind, texts in leaks.items() if texts)
    return dg.AssetCheckResult(
        passed=not found, severity=dg.AssetCheckSeverity.ERROR, description=told or None, metadata=metadata
    )
