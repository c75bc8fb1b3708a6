"""Assets of the stage filtering: every row judged once, and what is left divided for training."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl

from resources.hardware import Hardware
from resources.inference import Inference
from resources.storage import Home
from synth_assets.filtering.features import Base
from synth_assets.filtering.judge import Verdicts, judge
from synth_assets.filtering.pass_rates import markdown
from synth_assets.filtering.preferences import (
    PREFERENCE_REASONS,
    PREFIX,
    PreferenceVerdicts,
    Surroundings,
    judge_preferences,
)
from synth_assets.filtering.rules import RULES
from synth_assets.filtering.spec import FilterSpec
from synth_assets.filtering.split import SplitSpec, split
from synth_assets.filtering.verdicts import CONTAMINATED
from synth_assets.manifests import content_hash
from synth_assets.records import INSTRUCTIONS, ModelRecord, fingerprint
from synth_assets.shards import sweep_temporaries
from synth_assets.text_samples import escaped, escaped_sample

SAMPLE_ROWS = 10
ITEM_CHARACTERS = 100  # of each cell of the table of benchmark items
SAMPLE_COLUMNS = ("reason", "detail", "score", "instruction", "response", "chosen", "rejected")


class FilterConfig(dg.Config):
    """Overrides of FilterSpec for one run; what is left out comes from the tier and the spec."""

    min_words: int | None = None
    max_instruction_words: int | None = None
    max_response_words: int | None = None
    max_instruction_tokens: int | None = None
    max_response_tokens: int | None = None
    max_characters: int | None = None
    max_mean_word_bytes: int | None = None
    repetition_min_words: int | None = None
    max_duplicate_line_share: float | None = None
    max_top_3gram_share: float | None = None
    max_duplicate_5gram_share: float | None = None
    foreign_min_letters: int | None = None
    max_foreign_probability: float | None = None
    max_echo_similarity: float | None = None
    template_tokens: int | None = None
    near_duplicate_similarity: float | None = None
    benchmark_cover: float | None = None


class SplitConfig(dg.Config):
    """Overrides of SplitSpec for one run."""

    validation_fraction: float | None = None
    group_similarity: float | None = None
    seed: int | None = None


@dg.multi_asset(
    outs={
        "filtered_instructions": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="The rows that passed: one good row for each distinct task, none of a benchmark, with a score.",
            code_version=fingerprint(FilterSpec(), [rule.reason for rule in RULES]),
        ),
        "rejected_instructions": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="The rows that did not pass, each with its reason and the value behind it.",
            code_version=fingerprint(FilterSpec(), [rule.reason for rule in RULES]),
        ),
    },
    group_name="filtering",
)
def judged_instructions(
    context: dg.AssetExecutionContext,
    config: FilterConfig,
    raw_instructions: dict[str, pl.LazyFrame],
    imported_instructions: pl.LazyFrame,
    benchmark_items: pl.DataFrame,
    base_model: ModelRecord,
    hardware: Hardware,
    inference: Inference,
    home: Home,
) -> Iterator[dg.MaterializeResult]:
    """Every row, generated or imported, judged once: kept for one distinct task, or rejected with its reason."""
    spec = hardware.spec(FilterSpec(), config)
    batches = [raw_instructions[name] for name in sorted(raw_instructions)]
    rows = pl.concat([pl.LazyFrame(schema=INSTRUCTIONS), *batches, imported_instructions])
    base = Base(inference.count_tokens(base_model), base_model.context_tokens)
    with _scratch(home) as scratch:
        verdicts = judge(rows, benchmark_items, spec, base, scratch)
        context.log.info(f"rejected by reason: {verdicts.reasons}")
        for name, table in (("filtered_instructions", verdicts.kept), ("rejected_instructions", verdicts.rejected)):
            version = content_hash(table)
            home.leave_row_manifest(name, version, verdicts.fates)
            yield dg.MaterializeResult(
                asset_key=name,
                value=table,
                data_version=dg.DataVersion(version),
                metadata=_metadata(verdicts, table, spec),
            )


@dg.asset(
    group_name="filtering",
    kinds={"polars", "parquet"},
    owners=["team:data"],
    code_version=fingerprint(SplitSpec()),
)
def sft_dataset(
    config: SplitConfig, filtered_instructions: pl.LazyFrame, hardware: Hardware, home: Home
) -> dg.MaterializeResult:
    """The rows for supervised fine-tuning, train and validation divided by groups of similar tasks."""
    spec = hardware.spec(SplitSpec(), config)
    with _scratch(home) as scratch:
        rows = split(filtered_instructions, spec, scratch)
    version = content_hash(rows)
    sides = rows.select("row_id", "group", pl.col("split").alias("fate")).collect()
    home.leave_row_manifest("sft_dataset", version, sides.select("row_id", "fate"))
    counts = dict(sides["fate"].value_counts().iter_rows())
    return dg.MaterializeResult(
        value=rows,
        data_version=dg.DataVersion(version),
        metadata={
            "dagster/row_count": sides.height,
            "train_rows": counts.get("train", 0),
            "validation_rows": counts.get("validation", 0),
            "groups": sides["group"].n_unique(),
            "sample": dg.MetadataValue.md(_sample(rows, ("split", "instruction", "response"))),
            "spec": dg.MetadataValue.json(asdict(spec)),
        },
    )


@dg.multi_asset(
    outs={
        "filtered_preferences": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="The imported pairs that passed, each with the group of the instructions that it resembles.",
            code_version=fingerprint(FilterSpec(), PREFERENCE_REASONS),
        ),
        "rejected_preferences": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="The imported pairs that did not pass, each with its reason and the value behind it.",
            code_version=fingerprint(FilterSpec(), PREFERENCE_REASONS),
        ),
    },
    group_name="filtering",
)
def judged_preferences(
    context: dg.AssetExecutionContext,
    config: FilterConfig,
    imported_preferences: pl.LazyFrame,
    sft_dataset: pl.LazyFrame,
    benchmark_items: pl.DataFrame,
    base_model: ModelRecord,
    inference: Inference,
    home: Home,
) -> Iterator[dg.MaterializeResult]:
    """Every imported preference pair, judged once: both answers by the rules, none a copy, none of what is held out."""
    spec = inference.hardware.spec(FilterSpec(), config)
    around = Surroundings(sft_dataset, benchmark_items, inference.hardware.spec(SplitSpec()).group_similarity)
    base = Base(inference.count_tokens(base_model), base_model.context_tokens)
    with _scratch(home) as scratch:
        verdicts = judge_preferences(imported_preferences, around, spec, base, scratch)
        context.log.info(f"rejected by reason: {verdicts.reasons}")
        for name, table in (("filtered_preferences", verdicts.kept), ("rejected_preferences", verdicts.rejected)):
            version = content_hash(table)
            home.leave_row_manifest(name, version, verdicts.fates)
            yield dg.MaterializeResult(
                asset_key=name,
                value=table,
                data_version=dg.DataVersion(version),
                metadata=_metadata(verdicts, table, spec),
            )


@contextmanager
def _scratch(home: Home) -> Iterator[Path]:
    """A folder for temporary files; what a killed run left of earlier ones is removed."""
    folder = home.shards("filtering")
    sweep_temporaries(folder)
    with TemporaryDirectory(dir=folder, prefix=".judging-") as scratch:
        yield Path(scratch)


def _metadata(verdicts: Verdicts | PreferenceVerdicts, table: pl.LazyFrame, spec: FilterSpec) -> Mapping[str, Any]:
    columns = table.collect_schema().names()
    rejected = "reason" in columns
    judged, kept = verdicts.fates.height, verdicts.fates.filter(fate="kept").height
    shown = [name for name in SAMPLE_COLUMNS if name in columns]
    return {
        "dagster/row_count": judged - kept if rejected else kept,
        "judged_rows": judged,
        "pass_rate": kept / max(judged, 1),
        "rejected_by_reason": dg.MetadataValue.md(_reasons_table(verdicts.reasons, judged)),
        "sample": dg.MetadataValue.md(_sample(table, shown)),
        "spec": dg.MetadataValue.json(asdict(spec)),
        **(
            {"pass_rates": dg.MetadataValue.md(markdown(verdicts.pass_rates))}
            if isinstance(verdicts, Verdicts) and not rejected
            else {}
        ),
        **({"benchmark_items_found": dg.MetadataValue.md(_items_found(table))} if rejected else {}),
    }


def _reasons_table(reasons: Mapping[str, int], judged: int) -> str:
    family = {rule.reason: rule.family for rule in RULES}
    rows = [
        f"| {reason} | {family.get(reason.removeprefix(PREFIX), 'duplicates and benchmarks')} | {count} "
        f"| {count / judged:.2%} |"
        for reason, count in reasons.items()
    ]
    return "\n".join(["| reason | family | rows | share |", "|---|---|---:|---:|", *rows])


def _items_found(rejected: pl.LazyFrame) -> str:
    """A table of benchmark items and the rows that repeat them; the first ones, and how many there are."""
    found = rejected.filter(reason=CONTAMINATED).select("row_id", "instruction", item="detail")
    rows = found.select(pl.len()).collect().item()
    if not rows:
        return "No row repeats a benchmark item."
    shown = found.select("item", "row_id", "instruction").sort("item", "row_id").head(SAMPLE_ROWS).collect()
    lines = [
        f"| {escaped(item)} | {row} | {escaped(text[:ITEM_CHARACTERS])} |" for item, row, text in shown.iter_rows()
    ]
    return "\n".join([f"{rows} in all.\n", "| item: share found | row | instruction |", "|---|---|---|", *lines])


def _sample(table: pl.LazyFrame, columns: Sequence[str]) -> str:
    """Escaped rows, of rejected ones a row of each reason first."""
    rows = table.select(columns)
    if "reason" in columns:
        rows = rows.unique("reason", keep="first", maintain_order=True)
    return escaped_sample(rows.head(SAMPLE_ROWS).collect().iter_rows(named=True))
