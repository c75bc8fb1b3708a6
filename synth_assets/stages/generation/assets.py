"""Assets of the stage generation: what the teacher invents, and what users bring."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl

from resources.hardware import GPU_POOL, Hardware
from resources.inference import Inference
from resources.spec_config import config_of
from resources.step_meter import BudgetConfig, step_meter
from resources.storage import SynthHome
from synth_assets.reporting.escaping import escaped_sample
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import INSTRUCTIONS, PAIRS
from synth_assets.stages.generation.import_report import report_lines
from synth_assets.stages.generation.import_store import read_import, stored_imports
from synth_assets.stages.generation.magpie import GENERATION_VERSION, generate
from synth_assets.stages.generation.partitions import BATCHES, BATCHES_NAME, check_batch, stored_batches
from synth_assets.stages.generation.spec import MagpieSpec
from synth_assets.storage.atomic import sweep_temporaries
from synth_assets.storage.blocks import BLOCK_ROWS
from synth_assets.storage.manifests import content_hash

SAMPLE_ROWS = 5
SAMPLE_COLUMNS = ("instruction", "response", "chosen", "rejected")
REPORTS_SHOWN = 4  # an event stays under a few kB


class MagpieConfig(BudgetConfig, config_of(MagpieSpec)):
    """Overrides of MagpieSpec for one run."""


@dg.asset(
    partitions_def=BATCHES,
    group_name="generation",
    kinds={"transformers", "parquet"},
    pool=GPU_POOL,
    owners=["team:data"],
    code_version=fingerprint(GENERATION_VERSION, MagpieSpec()),
)
def raw_instructions(
    context: dg.AssetExecutionContext,
    config: MagpieConfig,
    teacher_model: ModelRecord,
    hardware: Hardware,
    inference: Inference,
    home: SynthHome,
) -> dg.MaterializeResult:
    """A batch of instructions that the teacher invents from its pre-query template, with its answers (Magpie)."""
    batch = check_batch(context.partition_key, stored_batches(home.tables()))
    context.instance.add_dynamic_partitions(BATCHES_NAME, [batch])  # a scheduled run brings a new name
    meter = step_meter(context, hardware.row(), config)
    spec = hardware.spec(MagpieSpec(), config)
    where = batch, teacher_model.family, home.shards("generation")
    generator = inference.generator(teacher_model)
    made = generate(generator, spec, *where, context.log.info, budget=meter.budget)
    version = content_hash(made.rows)
    home.leave_row_manifest("raw_instructions", version, _all_kept(made.rows))
    return dg.MaterializeResult(
        value=made.rows,
        data_version=dg.DataVersion(version),
        metadata={
            **_counts(made.rows),
            "sample": _sample(made.rows),
            **meter.writing_facts(made.new_tokens, generator.writing_s),
            **(_speed(made.new_tokens / generator.writing_s, inference, teacher_model) if made.new_tokens else {}),
            "spec": dg.MetadataValue.json(asdict(spec)),
        },
    )


@dg.multi_asset(
    outs={
        "imported_instructions": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Instructions of the files in SYNTH_HOME/imports (`synth import FILE`), judged like all.",
        ),
        "imported_preferences": dg.AssetOut(
            kinds={"polars", "parquet"},
            owners=["team:data"],
            description="Preference pairs of the files in SYNTH_HOME/imports (`synth import FILE`).",
        ),
    },
    group_name="generation",
)
def imports(context: dg.AssetExecutionContext, home: SynthHome) -> Iterator[dg.MaterializeResult]:
    """The rows of all imported files; empty tables where nothing was imported."""
    folder = home.shards("imports")
    sweep_temporaries(folder)
    with TemporaryDirectory(dir=folder, prefix=".reading-") as scratch:
        read = [read_import(stored, Path(scratch)) for stored in stored_imports(home.imports())]
        for each in read:
            context.log.info("\n".join(report_lines(each.report)))
        tables = {
            "imported_instructions": pl.concat([pl.LazyFrame(schema=INSTRUCTIONS), *(r.instructions for r in read)]),
            "imported_preferences": pl.concat([pl.LazyFrame(schema=PAIRS), *(r.preferences for r in read)]),
        }
        for name, rows in tables.items():
            version = content_hash(rows)
            kept = _all_kept(rows)
            home.leave_row_manifest(name, version, kept)
            reports = {each.report.name: each.report.facts() for each in read[:REPORTS_SHOWN]}
            yield dg.MaterializeResult(
                asset_key=name,
                value=rows,
                data_version=dg.DataVersion(version),
                metadata={
                    "dagster/row_count": kept.height,
                    "files": len(read),
                    "rejected": sum(each.report.rejected.total() for each in read),
                    "sample": _sample(rows),
                    "reports": dg.MetadataValue.json(reports),
                },
            )


def _all_kept(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.select("row_id", fate=pl.lit("kept")).collect()


def _counts(rows: pl.LazyFrame) -> dict[str, Any]:
    """Row count, distinct instructions, how texts ended, how long they are, and the mix of topics and turns."""
    ends = ("instruction_finish_reason", "response_finish_reason")
    lengths = ("instruction_tokens", "response_tokens", "history_tokens")
    exchanges = (pl.col("history").list.len() // 2 + 1).cast(pl.String).alias("exchanges")
    frame = rows.select("instruction", "topic", *ends, *lengths, exchanges).collect()
    measures = {"mean": pl.Series.mean, "max": pl.Series.max, "all": pl.Series.sum}
    tokens = {name: {word: of(frame[name]) for word, of in measures.items()} for name in lengths}
    return {
        "dagster/row_count": frame.height,
        "distinct_instructions_rate": frame["instruction"].n_unique() / max(frame.height, 1),
        "finish_reasons": dg.MetadataValue.json({name: _mix(frame[name], "not asked") for name in ends}),
        "tokens": dg.MetadataValue.json(tokens),
        "topics": dg.MetadataValue.json(_mix(frame["topic"], "none")),
        "exchanges": dg.MetadataValue.json(_mix(frame["exchanges"], "none")),
    }


def _mix(values: pl.Series, absent: str) -> dict[str, int]:
    return dict(values.fill_null(absent).value_counts(sort=True).iter_rows())


def _speed(tokens_per_s: float, inference: Inference, teacher: ModelRecord) -> dict[str, Any]:
    """Tokens per second, and as a share of what the device's memory allows a block of rows at most."""
    bound = inference.roofline(teacher, BLOCK_ROWS)
    return {
        "tokens_per_s": tokens_per_s,
        "roofline_share": tokens_per_s / bound.tokens_per_s,
        "roofline": dg.MetadataValue.json(bound.facts()),
    }


def _sample(rows: pl.LazyFrame) -> dg.MarkdownMetadataValue:
    texts = [name for name in SAMPLE_COLUMNS if name in rows.collect_schema()]
    return dg.MetadataValue.md(escaped_sample(rows.select(texts).head(SAMPLE_ROWS).collect().to_dicts()))
