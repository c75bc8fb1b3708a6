"""Recompute scores without the items that overlap with training texts."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from synth_assets.schemas.records import Metric
from synth_assets.schemas.tables import UNANSWERABLE
from synth_assets.stats.intervals import estimate
from synth_assets.storage.manifests import content_hash
from synth_assets.text.lexicon import BOILERPLATE_ITEMS, NGRAM_WORDS, contained
from synth_assets.text.words import hash_words, ngrams, whole_texts


def overlapping_items(items: pl.DataFrame, texts: Sequence[str]) -> set[str]:
    """Return the ids of items that share an 8-gram with a text, or equal a text if they have fewer than 8 words.

    Stricter than decontamination, which removes rows that cover half of an item: here one shared 8-gram is enough.

    Args:
        items: BENCHMARK_ITEMS; only the prompts are compared.
        texts: all texts that a model was trained on.
    """
    prompts, seen = hash_words(items["prompt"].to_list()), hash_words(list(texts))
    grams, first = ngrams(prompts, NGRAM_WORDS)
    entries = np.unique(np.stack([grams, prompts.text[first].astype(np.uint64)], axis=1), axis=0)
    _, inverse, spread = np.unique(entries[:, 0], return_inverse=True, return_counts=True)
    specific = entries[spread[inverse] <= BOILERPLATE_ITEMS]
    shared = specific[contained(specific[:, 0], np.unique(ngrams(seen, NGRAM_WORDS)[0])), 1].astype(np.int64)
    short = (prompts.counts() < NGRAM_WORDS) & contained(whole_texts(prompts), np.unique(whole_texts(seen)))
    indices = np.union1d(shared, np.flatnonzero(short))
    return set(items["item_id"].gather(indices.tolist()))


def training_texts(sft_dataset: pl.LazyFrame, pairs: Sequence[pl.LazyFrame]) -> list[str]:
    """Return all texts that an adapter may have been trained on, including earlier turns and rejected responses.

    Args:
        sft_dataset: SFT_ROWS; only the train split is used.
        pairs: PAIRS of each round; only the train split is used.
    """
    texts: list[str] = []
    tables = [(sft_dataset, ("response",)), *((rows, ("chosen", "rejected")) for rows in pairs)]
    for rows, columns in tables:
        train = rows.filter(split="train")
        turns = train.select(pl.col("history").explode().struct.field("content"))
        parts = [turns, *(train.select(pl.col(name).alias("content")) for name in ("instruction", *columns))]
        texts += pl.concat(parts).drop_nulls().collect()["content"].to_list()
    return texts


def without_overlap(measured: Sequence[Metric], scores: pl.DataFrame, overlapping: Collection[str]) -> list[Metric]:
    """Return the test metrics on the items outside of `overlapping`, of kind "derived"; omit metrics without items.

    Args:
        measured: metrics built from `scores`.
        scores: ITEM_SCORES.
        overlapping: item ids.
    """
    outside = scores.filter(~pl.col("item_id").is_in(list(overlapping)))
    kept = outside.filter(pl.col("score").is_not_null())
    left_out = outside.filter(pl.col("finish_reason").is_in(UNANSWERABLE))
    items_hash, clean = content_hash(kept), []
    for metric in measured:
        key = {"model": metric.model, "suite": metric.suite, "split": metric.split, "metric": metric.metric}
        rows = kept.filter(**key)
        if metric.split == "test" and not rows.is_empty():
            recomputed = estimate(rows["score"].to_list(), rows["cluster"].to_list())
            numbers = {
                "value": recomputed.value,
                "n": recomputed.n,
                "ci_low": recomputed.low,
                "ci_high": recomputed.high,
            }
            numbers["unanswerable"] = left_out.filter(**key).height
            clean.append(
                replace(metric, **numbers, interval=recomputed.method, items_sha256=items_hash, kind="derived")
            )
    return clean


def overlap_table(measured: Sequence[Metric], clean: Sequence[Metric]) -> str:
    """Return a Markdown table of the metrics with and without overlapping items."""
    by_key = {(m.model, m.suite, m.metric): m for m in clean}
    rows = ["| model | suite | metric | all items | n | without overlap | n |", "|---|---|---|---:|---:|---:|---:|"]
    for metric in (m for m in measured if m.split == "test"):
        other = by_key.get((metric.model, metric.suite, metric.metric))
        shown = f"{other.value:.3f} | {other.n}" if other else "- | 0"
        rows.append(
            f"| {metric.model} | {metric.suite} | {metric.metric} | {metric.value:.3f} | {metric.n} | {shown} |"
        )
    return "\n".join(rows)
