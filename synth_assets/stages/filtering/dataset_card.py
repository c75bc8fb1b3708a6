"""Dataset card in the Hugging Face Hub format, with every number counted from the rows.

A YAML header is followed by Markdown:
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
from synth_assets.stages.filtering.reviews import REVIEWED
from synth_assets.stages.filtering.rules import RULES
from synth_assets.storage.retractions import RECALLED

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "n>1M"
LICENCES = {"embedded:": "MIT, as this project: the shipped teacher was trained on sentences written for the project"}
OTHER_FAMILIES = {
    CONTAMINATED: "benchmarks",
    EXACT: "duplicates",
    NEAR: "duplicates",
    RECALLED: "recalled by a person",
    REVIEWED: "decision of a reviewer",
}
LIMITS = (
    "Answers are not verified: the filter checks form, repetition, language, safety and overlap, not facts.",
    "Decontamination is a lower bound: it does not detect a paraphrase of a benchmark item.",
    "The score is the distance to the filter's limits, not a measure of quality.",
    "Generated rows have the errors and biases of the model that generated them.",
)


@dataclass(frozen=True)
class CardFacts:
    """Facts of the card that are not in the rows.

    Args:
        data_version: data version of the dataset.
        filter_spec: thresholds of the filter, by name.
        split_spec: settings of the split.
        data_versions: data versions of everything upstream.
    """

    data_version: str
    filter_spec: Mapping[str, Any] = field(default_factory=dict)
    split_spec: Mapping[str, Any] = field(default_factory=dict)
    data_versions: Mapping[str, str] = field(default_factory=dict)


def dataset_card(rows: pl.LazyFrame, rejected: pl.LazyFrame, items: pl.DataFrame, facts: CardFacts) -> str:
    """Return the card as Markdown.

    Args:
        rows: SFT_ROWS.
        rejected: REJECTED of the same filter run.
        items: BENCHMARK_ITEMS used for decontamination.
        facts: versions and specs.

    Raises:
        ValueError: there are no rows.
    """
    splits = _counts(rows, "split")
    kept = sum(splits.values())
    if not kept:
        raise ValueError("dataset card: the dataset has no rows")
    origins = rows.group_by("source", "batch", "model", "revision").agg(
        rows=pl.len(), seeds=pl.col("seed").drop_nulls().n_unique(), temperatures=pl.col("temperature").unique().sort()
    )
    origins = origins.sort("source", "batch", "model", "revision").collect()
    parts = [
        _header(splits, kept, origins["source"].unique().to_list()),
        f"# sft_dataset {facts.data_version}\n\n{kept:,} instructions with responses for supervised fine-tuning, in "
        "English. This card is generated from the rows.",
        _origins(origins),
        _filter(kept, _counts(rejected, "reason"), facts.filter_spec),
        _decontamination(rejected, items, facts.filter_spec),
        _splits(rows, splits, facts.split_spec),
        "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        "## Versions\n\n" + _table(("asset", "data version"), sorted(facts.data_versions.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _header(splits: Mapping[str, int], kept: int, sources: Sequence[str]) -> str:
    header = {
        "pretty_name": "Instructions filtered by synth-assets",
        "language": ["en"],
        "license": "other",
        "license_name": "see-sources",
        "task_categories": ["text-generation"],
        "size_categories": [next((name for limit, name in SIZES if kept < limit), LARGEST)],
        "tags": ["synthetic", "instruction-tuning", *(["magpie"] if "magpie" in sources else [])],
        "dataset_info": {"splits": [{"name": name, "num_examples": rows} for name, rows in sorted(splits.items())]},
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---"


def _origins(origins: pl.DataFrame) -> str:
    lines = []
    for row in origins.to_dicts():
        drawn = [f"{value:g}" for value in row["temperatures"] if value is not None]
        model = f"{row['model']} at {row['revision']}" if row["model"] else "not recorded"
        lines.append((row["source"], row["batch"], model, ", ".join(drawn) or "-", row["seeds"] or "-", row["rows"]))
    head = ("source", "batch", "model and revision", "temperature", "distinct seeds", "rows")
    return f"## Sources\n\n{_table(head, lines)}\n\nLicences:\n\n" + "\n".join(_licences(origins))


def _licences(origins: pl.DataFrame) -> list[str]:
    lines = []
    for source, model in origins.select("source", "model").unique(maintain_order=True).iter_rows():
        licence = next((text for start, text in LICENCES.items() if (model or "").startswith(start)), None)
        fallback = (
            f"that of the outputs of {model}; see its model page"
            if model
            else "not recorded: ask who imported the file"
        )
        lines.append(f"- {escaped(source)}: {licence or escaped(fallback)}")
    return lines


def _filter(kept: int, reasons: Mapping[str, int], spec: Mapping[str, Any]) -> str:
    filtered = kept + sum(reasons.values())
    family = {**{rule.reason: rule.family for rule in RULES}, **OTHER_FAMILIES}
    lines = [(name, family.get(name, "-"), rows, f"{rows / filtered:.2%}") for name, rows in reasons.items()]
    summary = f"{kept:,} of {filtered:,} rows were kept: a pass rate of {kept / filtered:.1%}."
    return (
        f"## Filtering\n\n{summary}\n\n"
        "![Rows by outcome of the filter](filtering_stats.png)\n\n"
        f"{_table(('reason', 'family', 'rows', 'share of all rows'), lines)}\n\nThresholds:\n\n{_json(spec)}"
    )


def _decontamination(rejected: pl.LazyFrame, items: pl.DataFrame, spec: Mapping[str, Any]) -> str:
    hits = rejected.filter(reason=CONTAMINATED).select(item=pl.col("detail").str.split(": ").list.first()).collect()
    suites = items["suite"].value_counts(sort=True).rows()
    cover = f" at a cover of {spec['benchmark_cover']:g} of an item's 8-grams" if "benchmark_cover" in spec else ""
    return (
        f"## Decontamination\n\n{len(hits):,} rows were rejected because they contain one of "
        f"{hits['item'].n_unique():,} benchmark items{cover}.\n\n{_table(('suite', 'items compared'), suites)}"
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
    medians_text = f"\n\nMedian tokens, by the generating model's tokenizer: {medians}." if medians else ""
    return f"## Splits\n\n{_table(('split', 'rows', 'groups of similar tasks'), lines)}{medians_text}\n\n{_json(spec)}"


def _counts(rows: pl.LazyFrame, name: str) -> dict[str, int]:
    """Return the number of rows by value, most frequent first."""
    counts = rows.group_by(name).len().sort(["len", name], descending=[True, False]).collect()
    return dict(counts.iter_rows())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(escaped(str(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])


def _json(spec: Mapping[str, Any]) -> str:
    return f"```json\n{json.dumps(dict(spec), indent=1, sort_keys=True)}\n```"
