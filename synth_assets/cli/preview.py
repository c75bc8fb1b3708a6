"""`synth preview`: ten rows of a batch before hours are spent on it, as the run would make them."""

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
from synth_assets.stages.filtering.features import Features, TokenLimits
from synth_assets.stages.filtering.pass_rates import PassRates
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.generation.assets import MagpieConfig
from synth_assets.stages.generation.magpie import generate
from synth_assets.stages.generation.spec import MagpieSpec
from synth_assets.storage.blocks import BLOCK_ROWS, Progress

SHOWN_ROWS = 10
WIDTH = 80
SHOWN_CHARACTERS = 300
KEY = "raw_instructions"


@dataclass(frozen=True)
class Preview:
    """The first block of a batch, and what it cost.

    Attributes:
        rows: INSTRUCTIONS.
        reasons: of each row, the filter rule that will reject it; empty where none does. Benchmarks and duplicates are
            looked for in the run only.
        spec: what the run would be made with.
        tokens_per_s: while they were generated; None where the block was there already.
        rows_per_s: the same in rows.
    """

    rows: pl.DataFrame
    reasons: list[str]
    spec: MagpieSpec
    tokens_per_s: float | None
    rows_per_s: float | None


def make_preview(session: Session, batch: str | None, settings: tuple[str, ...], progress: Progress) -> Preview:
    """Generate the first block of the batch where it is not there yet; the run goes on from it.

    A block is what is always computed whole, so that nothing of the ten rows is made twice. No asset is materialised.

    Args:
        session: the deployment.
        batch: its name; the newest there is, else `first`, where None.
        settings: "raw_instructions.field=value", as `synth run --set` takes them.
        progress: receives progress lines.

    Raises:
        ValueError: a setting of another asset, one that does not exist, or one that the spec refuses.
    """
    ops = ops_for(pipeline_job(), settings)
    if others := sorted(set(ops) - {KEY}):
        raise ValueError(f"a preview makes {KEY} alone; a setting of {', '.join(others)} changes nothing in it")
    spec = session.hardware.spec(MagpieSpec(), MagpieConfig(**ops.get(KEY, {}).get("config", {})))
    name = batch_name(session, batch)
    inference = Inference(hardware=session.hardware)
    teacher, base = inference.resolve("teacher"), inference.resolve("base")
    generator = inference.generator(teacher)
    block = MagpieSpec(**{**vars(spec), "samples": BLOCK_ROWS})
    session.limit_model_steps()
    with command_gpu_slot(session.instance, "synth preview", progress):
        made = generate(generator, block, name, teacher.family, session.storage.shards("generation"), progress)
    rows = made.rows.collect()
    judge = TokenLimits(inference.count_tokens(base), base.context_tokens, inference.template_refusal(base))
    speed = generator.writing_s if made.new_tokens else None
    return Preview(
        rows=rows,
        reasons=reasons_of(rows, judge, session.hardware.spec(FilterSpec())),
        spec=spec,
        tokens_per_s=made.new_tokens / speed if speed else None,
        rows_per_s=rows.height / speed if speed else None,
    )


def reasons_of(rows: pl.DataFrame, base: TokenLimits, spec: FilterSpec) -> list[str]:
    """The first rule that rejects each row; empty where every rule lets it pass."""
    verdict = RowDecision(rows)
    apply_rules(Features(rows, spec, base), verdict, PassRates())
    return verdict.reason.tolist()


def preview_text(preview: Preview, samples: int | None = None) -> str:
    """Ten rows at 80 columns, how the whole block did, and what the run would take at that speed."""
    shown = zip(preview.rows.head(SHOWN_ROWS).iter_rows(named=True), preview.reasons, strict=False)
    parts = [_row_text(number, row, reason) for number, (row, reason) in enumerate(shown, start=1)]
    kept = preview.reasons.count("")
    rejected = Counter(reason for reason in preview.reasons if reason)
    why = "; ".join(f"{count} {reason}" for reason, count in rejected.most_common())
    parts.append(
        f"{kept} of {len(preview.reasons)} rows pass the rules{f' (rejected: {why})' if why else ''}.\n"
        f"{_speed_text(preview, samples or preview.spec.samples)}\n"
        f"This block is kept: a run with the same settings goes on from it."
    )
    return "\n".join(parts)


def _row_text(number: int, row: dict[str, object], reason: str) -> str:
    ends = f"{row['instruction_finish_reason']}/{row['response_finish_reason'] or 'not asked'}"
    counts = f"{row['instruction_tokens']} + {row['response_tokens']} tokens"
    topic = f", topic {row['topic']}" if row["topic"] else ""
    verdict = f"rejected: {reason}" if reason else "passes"
    turns = row["history"] if isinstance(row["history"], list) else []
    said = [(turn["role"], turn["content"]) for turn in turns]
    said += [("user", row["instruction"]), ("assistant", row["response"])]
    lines = [f"{number:2}  {ends}, {counts}{topic}: {verdict}"]
    lines += [f"  {'>' if role == 'user' else '<'} {terminal_line(str(t), SHOWN_CHARACTERS)}" for role, t in said]
    return "\n".join(_wrapped(line, "    ") for line in lines)


def _speed_text(preview: Preview, samples: int) -> str:
    if preview.tokens_per_s is None or preview.rows_per_s is None:
        return "The block was made before, so no speed was measured now; synth plan knows past runs."
    minutes = samples / preview.rows_per_s / 60
    return (
        f"{preview.tokens_per_s:,.0f} tokens/s, {preview.rows_per_s:.1f} rows/s; at that speed {samples:,} raw "
        f"instructions\ntake about {minutes:.1f} minutes to generate."
    )


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
