"""`synth preview`: generate the first block of a batch and show ten rows before a long run."""

import textwrap
from collections import Counter
from dataclasses import dataclass

import polars as pl

from resources.gpu_slots import command_gpu_slot
from resources.inference import Inference
from synth_assets.cli.run import batch_name, pipeline_job
from synth_assets.cli.session import Session
from synth_assets.cli.settings import ops_for
from synth_assets.reporting.escaping import terminal_line
from synth_assets.stages.filtering.apply import apply_rules
from synth_assets.stages.filtering.decisions import RowDecision
from synth_assets.stages.filtering.features import Features
from synth_assets.stages.filtering.pass_rates import PassRates
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.generation.config import MagpieConfig
from synth_assets.stages.generation.magpie import generate
from synth_assets.stages.generation.spec import MagpieSpec
from synth_assets.storage.blocks import BLOCK_ROWS, Progress
from synth_assets.text.token_limits import TokenLimits

MAX_SHOWN_ROWS = 10
WIDTH = 80
MAX_SHOWN_CHARACTERS = 300
KEY = "raw_instructions"


@dataclass(frozen=True)
class Preview:
    """The first block of a batch and the speed of its generation.

    Attributes:
        rows: INSTRUCTIONS.
        reasons: for each row the filter rule that rejects it, empty if it passes. Only a run checks for benchmark items
            and duplicates.
        spec: the settings of the run.
        tokens_per_s: speed of the generation; None if the block was cached.
        rows_per_s: the same in rows.
    """

    rows: pl.DataFrame
    reasons: list[str]
    spec: MagpieSpec
    tokens_per_s: float | None
    rows_per_s: float | None


def make_preview(session: Session, batch: str | None, settings: tuple[str, ...], progress: Progress) -> Preview:
    """Generate the first block of the batch, or load it from the cache.

    A block is the unit that a run generates and caches, so the run reuses it. No asset is materialised.

    Args:
        session: the deployment.
        batch: name of the batch; None for the newest one, or `first`.
        settings: "raw_instructions.field=value", as in `synth run --set`.
        progress: receives progress lines.

    Raises:
        ValueError: a setting belongs to another asset, does not exist, or has an invalid value.
    """
    ops = ops_for(pipeline_job(), settings)
    if others := sorted(set(ops) - {KEY}):
        raise ValueError(f"--set must be a setting of {KEY} in a preview, got one of {', '.join(others)}")
    spec = session.hardware.spec(MagpieSpec(), MagpieConfig(**ops.get(KEY, {}).get("config", {})))
    name = batch_name(session, batch)
    inference = Inference(hardware=session.hardware)
    teacher, base = inference.resolve("teacher"), inference.resolve("base")
    generator = inference.generator(teacher)
    block = MagpieSpec(**{**vars(spec), "samples": BLOCK_ROWS})
    session.limit_model_steps()
    with command_gpu_slot(session.instance, "synth preview", progress):
        generated = generate(generator, block, name, teacher.family, session.storage.shards("generation"), progress)
    rows = generated.rows.collect()
    limits = TokenLimits(inference.count_tokens(base), base.context_tokens, inference.template_refusal(base))
    seconds = generator.writing_s if generated.new_tokens else None
    return Preview(
        rows=rows,
        reasons=reasons_of(rows, limits, session.hardware.spec(FilterSpec())),
        spec=spec,
        tokens_per_s=generated.new_tokens / seconds if seconds else None,
        rows_per_s=rows.height / seconds if seconds else None,
    )


def reasons_of(rows: pl.DataFrame, limits: TokenLimits, spec: FilterSpec) -> list[str]:
    """Return the first rule that rejects each row; empty for rows that pass all rules."""
    decision = RowDecision(rows)
    apply_rules(Features(rows, spec, limits), decision, PassRates())
    return decision.reason.tolist()


def preview_text(preview: Preview, samples: int | None = None) -> str:
    """Return ten rows, the pass rate of the block, and the time that the run would take at this speed."""
    shown = zip(preview.rows.head(MAX_SHOWN_ROWS).iter_rows(named=True), preview.reasons, strict=False)
    parts = [_row_text(number, row, reason) for number, (row, reason) in enumerate(shown, start=1)]
    kept = preview.reasons.count("")
    rejected = Counter(reason for reason in preview.reasons if reason)
    counts = ", ".join(f"{reason} {count}" for reason, count in rejected.most_common())
    parts.append(
        f"{kept} of {len(preview.reasons)} rows pass the rules{f' (rejected: {counts})' if counts else ''}.\n"
        f"{_speed_text(preview, samples or preview.spec.samples)}\n"
        f"The block is cached: a run with the same settings reuses it."
    )
    return "\n".join(parts)


def _row_text(number: int, row: dict[str, object], reason: str) -> str:
    ends = f"{row['instruction_finish_reason']}/{row['response_finish_reason'] or 'not generated'}"
    counts = f"{row['instruction_tokens']} + {row['response_tokens']} tokens"
    topic = f", topic {row['topic']}" if row["topic"] else ""
    decision = f"rejected: {reason}" if reason else "passes"
    turns = row["history"] if isinstance(row["history"], list) else []
    messages = [(turn["role"], turn["content"]) for turn in turns]
    messages += [("user", row["instruction"]), ("assistant", row["response"])]
    lines = [f"{number:2}  {ends}, {counts}{topic}: {decision}"]
    for role, text in messages:
        lines.append(f"  {'>' if role == 'user' else '<'} {terminal_line(str(text), MAX_SHOWN_CHARACTERS)}")
    return "\n".join(_wrapped(line, "    ") for line in lines)


def _speed_text(preview: Preview, samples: int) -> str:
    if preview.tokens_per_s is None or preview.rows_per_s is None:
        return "The block was cached, so no speed was measured; see `synth plan`."
    minutes = samples / preview.rows_per_s / 60
    return (
        f"{preview.tokens_per_s:,.0f} tokens/s, {preview.rows_per_s:.1f} rows/s; {samples:,} raw instructions take\n"
        f"about {minutes:.1f} minutes at this speed."
    )


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
