"""Dataset card in the Hugging Face Hub format, with every number counted from the rows.

A YAML header is followed by Markdown:
https://huggingface.co/docs/hub/datasets-cards
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from synth_assets.registry.dataset_runs import log_dataset
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.reporting.escaping import escaped
from synth_assets.reporting.figures import markdown_image, png, thumbnail
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.filtering.decisions import CONTAMINATED, EXACT, NEAR, SEMANTIC, SEMANTIC_ITEM
from synth_assets.stages.filtering.diversity import Diversity, diversity_map, measure_diversity
from synth_assets.stages.filtering.report import BY_PEOPLE, stats_figure
from synth_assets.stages.filtering.rules import RULES
from synth_assets.storage.atomic import write_bytes, write_text
from synth_assets.text.embeddings import TextEmbedder

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "n>1M"
LICENCES = {"embedded:": "MIT, as this project: the shipped teacher was trained on sentences written for the project"}
OTHER_FAMILIES = {
    CONTAMINATED: "benchmarks",
    EXACT: "duplicates",
    NEAR: "duplicates",
    **BY_PEOPLE,
    SEMANTIC: "duplicates",
    SEMANTIC_ITEM: "benchmarks",
}
MAP = "embedding_map.png"
ONLY_WORDS = "Decontamination is a lower bound: it does not detect a paraphrase of a benchmark item."
BY_MEANING = (
    "Decontamination is a lower bound: an embedding model detects most paraphrases of a benchmark item, not all."
)
LIMITS = (
    "Answers are not verified: the filter checks form, repetition, language, safety and overlap, not facts.",
    ONLY_WORDS,
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
        diversity: by an embedding model; None without one.
    """

    data_version: str
    filter_spec: Mapping[str, Any] = field(default_factory=dict)
    split_spec: Mapping[str, Any] = field(default_factory=dict)
    data_versions: Mapping[str, str] = field(default_factory=dict)
    diversity: Diversity | None = None


@dataclass(frozen=True)
class LoggedCard:
    """A card as logged: its text, the numbers of rows and of diversity, its figures as Markdown, and its MLflow run."""

    text: str
    numbers: Mapping[str, float]
    figures: Mapping[str, str]
    run_id: str

    @property
    def data_version(self) -> str:
        """Data version of the card."""
        return fingerprint(self.text)


def measured_diversity(rows: pl.LazyFrame, embedder: TextEmbedder | None) -> Diversity | None:
    """Return the diversity of SFT_ROWS; None without an embedding model or without rows."""
    return measure_diversity(rows, embedder) if embedder else None


def log_card(
    tables: tuple[pl.LazyFrame, pl.LazyFrame, pl.DataFrame], facts: CardFacts, tracker: MlflowTracker, folder: Path
) -> LoggedCard:
    """Write the card of sft_dataset with its figures into a folder, and log the folder in MLflow.

    Args:
        tables: SFT_ROWS, REJECTED and BENCHMARK_ITEMS, as for `dataset_card`.
        facts: versions and specs.
        tracker: the tracker of the run.
        folder: folder of the card.
    """
    rows, rejected, items = tables
    text = dataset_card(rows, rejected, items, facts)
    write_text(folder / "README.md", text)
    figure, diversity = stats_figure(rows, rejected), facts.diversity
    write_bytes(folder / "filtering_stats.png", thumbnail(figure))
    numbers: dict[str, float] = {"rows": _row_count(rows), "rejected_rows": _row_count(rejected)}
    figures = {"figure": markdown_image("kept and rejected rows", figure)}
    if diversity:
        numbers |= diversity.numbers()
        drawn = diversity_map(diversity)
        write_bytes(folder / MAP, png(drawn))
        figures["embedding_map"] = markdown_image("map of the embeddings", drawn)
    run_id = log_dataset(tracker, "sft_dataset", facts.data_version, numbers, folder)
    return LoggedCard(text, numbers, figures, run_id)


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
        *([_diversity(facts.diversity)] if facts.diversity else []),
        "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(facts.filter_spec)),
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
    more = _paraphrases(rejected, spec)
    return (
        f"## Decontamination\n\n{len(hits):,} rows were rejected because they contain one of "
        f"{hits['item'].n_unique():,} benchmark items{cover}.{more}\n\n{_table(('suite', 'items compared'), suites)}"
    )


def _paraphrases(rejected: pl.LazyFrame, spec: Mapping[str, Any]) -> str:
    if "embedder" not in spec:
        return ""
    rows = rejected.filter(reason=SEMANTIC_ITEM).select(pl.len()).collect().item()
    return (
        f" {rows:,} more were rejected because their instruction is a paraphrase of an item: a cosine of at least "
        f"{spec['semantic_item_similarity']:g} by {spec['embedder']}."
    )


def _limits(spec: Mapping[str, Any]) -> list[str]:
    return [BY_MEANING if limit == ONLY_WORDS and "embedder" in spec else limit for limit in LIMITS]


def _diversity(diversity: Diversity) -> str:
    lines = [
        (row.batch, row.rows, f"{row.nearest_distance:.3f}", f"{row.vendi_score:.1f}") for row in diversity.batches
    ]
    is_sample = diversity.sampled_rows < diversity.rows
    sample = f" A sample of {diversity.sampled_rows:,} rows was measured." if is_sample else ""
    return (
        f"## Diversity\n\nOf the instructions, as embedded by {diversity.embedder}.{sample} {diversity.left_out:,} are "
        "longer than the model reads and left out. Nearest distance: mean cosine distance to the most similar other "
        "instruction of the batch. Vendi score: effective number of distinct instructions ([Friedman and Dieng 2023]"
        "(https://arxiv.org/abs/2210.02410)); at most the number of dimensions.\n\n"
        f"{_table(('batch', 'rows', 'nearest distance', 'Vendi score'), lines)}\n\n"
        f"![Instructions on the first two principal components of their embeddings]({MAP})"
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


def _row_count(table: pl.LazyFrame) -> int:
    return table.select(pl.len()).collect().item()
