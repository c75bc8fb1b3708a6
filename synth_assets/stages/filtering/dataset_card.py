"""The dataset card: what a person must know before training on the rows, every number counted from them.

The format is that of the Hugging Face hub (a YAML header, then Markdown):
https://huggingface.co/docs/hub/datasets-cards
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import yaml

from synth_assets.reporting.escaping import escaped
from synth_assets.stages.filtering.decisions import CONTAMINATED, EXACT, NEAR
from synth_assets.stages.filtering.rules import RULES
from synth_assets.storage.retractions import RECALLED

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "n>1M"
LICENCES = {"embedded:": "MIT, as this project: the shipped teacher was trained on sentences that the project made up"}
OTHER_FAMILIES = {CONTAMINATED: "benchmarks", EXACT: "duplicates", NEAR: "duplicates", RECALLED: "recalled by a person"}
LIMITS = (
    "No answer was checked for truth: the filter sees form, repetition, language, safety and overlap, not facts.",
    "Decontamination is a lower bound: a paraphrase of a benchmark item survives it.",
    "The score is the distance to the filter's limits, not a measure of quality.",
    "Generated rows carry the errors and the preferences of the model that made them.",
)


@dataclass(frozen=True)
class CardFacts:
    """What the card says that the rows themselves do not.

    Args:
        data_version: of the dataset.
        filter_spec: the thresholds that were in force, by name.
        split_spec: how train and validation were divided.
        data_versions: of everything upstream.
    """

    data_version: str
    filter_spec: Mapping[str, Any] = field(default_factory=dict)
    split_spec: Mapping[str, Any] = field(default_factory=dict)
    data_versions: Mapping[str, str] = field(default_factory=dict)


def dataset_card(rows: pl.LazyFrame, rejected: pl.LazyFrame, items: pl.DataFrame, facts: CardFacts) -> str:
    """The card as Markdown.

    Args:
        rows: SFT_ROWS.
        rejected: REJECTED, of the same judgement.
        items: BENCHMARK_ITEMS that the rows were held against.
        facts: versions and specs.

    Raises:
        ValueError: there are no rows.
    """
    splits = _counts(rows, "split")
    kept = sum(splits.values())
    if not kept:
        raise ValueError("dataset card: the dataset has no rows, there is nothing to describe")
    origins = rows.group_by("source", "batch", "model", "revision").agg(
        rows=pl.len(), seeds=pl.col("seed").drop_nulls().n_unique(), temperatures=pl.col("temperature").unique().sort()
    )
    made = origins.sort("source", "batch", "model", "revision").collect()
    parts = [
        _header(splits, kept, made["source"].unique().to_list()),
        f"# sft_dataset {facts.data_version}\n\n{kept:,} instructions with responses for supervised fine-tuning, in "
        "English. This card is written from the rows; nothing in it is typed by hand.",
        _origins(made),
        _filter(kept, _counts(rejected, "reason"), facts.filter_spec),
        _decontamination(rejected, items, facts.filter_spec),
        _splits(rows, splits, facts.split_spec),
        "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        "## Versions\n\n" + _table(("asset", "data version"), sorted(facts.data_versions.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _header(splits: Mapping[str, int], kept: int, sources: Sequence[str]) -> str:
    header = {
        "pretty_name": "Instructions judged by synth-assets",
        "language": ["en"],
        "license": "other",
        "license_name": "see-sources",
        "task_categories": ["text-generation"],
        "size_categories": [next((name for limit, name in SIZES if kept < limit), LARGEST)],
        "tags": ["synthetic", "instruction-tuning", *(["magpie"] if "magpie" in sources else [])],
        "dataset_info": {"splits": [{"name": name, "num_examples": rows} for name, rows in sorted(splits.items())]},
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---"


def _origins(made: pl.DataFrame) -> str:
    lines = []
    for row in made.to_dicts():
        drawn = [f"{value:g}" for value in row["temperatures"] if value is not None]
        model = f"{row['model']} at {row['revision']}" if row["model"] else "not recorded"
        lines.append((row["source"], row["batch"], model, ", ".join(drawn) or "-", row["seeds"] or "-", row["rows"]))
    head = ("source", "batch", "model and revision", "temperature", "distinct seeds", "rows")
    return f"## Where the rows come from\n\n{_table(head, lines)}\n\nLicences:\n\n" + "\n".join(_licences(made))


def _licences(made: pl.DataFrame) -> list[str]:
    told = []
    for source, model in made.select("source", "model").unique(maintain_order=True).iter_rows():
        known = next((text for start, text in LICENCES.items() if (model or "").startswith(start)), None)
        unknown = (
            f"that of the outputs of {model}; see its page" if model else "not recorded: ask whoever brought the file"
        )
        told.append(f"- {escaped(source)}: {known or escaped(unknown)}")
    return told


def _filter(kept: int, reasons: Mapping[str, int], spec: Mapping[str, Any]) -> str:
    judged = kept + sum(reasons.values())
    family = {**{rule.reason: rule.family for rule in RULES}, **OTHER_FAMILIES}
    lines = [(name, family.get(name, "-"), rows, f"{rows / judged:.2%}") for name, rows in reasons.items()]
    told = f"{judged:,} rows were judged, {kept:,} kept: a pass rate of {kept / judged:.1%}."
    return (
        f"## How they were chosen\n\n{told}\n\n"
        "![What became of the judged rows](filtering_stats.png)\n\n"
        f"{_table(('reason', 'family', 'rows', 'share of the judged'), lines)}\n\nThresholds:\n\n{_json(spec)}"
    )


def _decontamination(rejected: pl.LazyFrame, items: pl.DataFrame, spec: Mapping[str, Any]) -> str:
    hits = rejected.filter(reason=CONTAMINATED).select(item=pl.col("detail").str.split(": ").list.first()).collect()
    suites = items["suite"].value_counts(sort=True).rows()
    cover = f" at a cover of {spec['benchmark_cover']:g} of an item's 8-grams" if "benchmark_cover" in spec else ""
    return (
        f"## Decontamination\n\n{len(hits):,} rows were taken out because they hold one of {hits['item'].n_unique():,} "
        f"benchmark items{cover}.\n\n{_table(('suite', 'items held against the rows'), suites)}"
    )


def _splits(rows: pl.LazyFrame, splits: Mapping[str, int], spec: Mapping[str, Any]) -> str:
    groups = dict(rows.group_by("split").agg(pl.col("group").n_unique()).collect().iter_rows())
    tokens = rows.select(pl.col("instruction_tokens", "response_tokens").median()).collect().row(0)
    lines = [(name, number, groups[name]) for name, number in sorted(splits.items())]
    medians = ", ".join(
        f"{side} {value:g}"
        for side, value in zip(("instruction", "response"), tokens, strict=True)
        if value is not None
    )
    told = f"\n\nMedian tokens of the model that made them: {medians}." if medians else ""
    return f"## Splits\n\n{_table(('split', 'rows', 'groups of similar tasks'), lines)}{told}\n\n{_json(spec)}"


def _counts(rows: pl.LazyFrame, name: str) -> dict[str, int]:
    """Rows by value, most frequent first."""
    counts = rows.group_by(name).len().sort(["len", name], descending=[True, False]).collect()
    return dict(counts.iter_rows())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(escaped(str(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])


def _json(spec: Mapping[str, Any]) -> str:
    return f"```json\n{json.dumps(dict(spec), indent=1, sort_keys=True)}\n```"
