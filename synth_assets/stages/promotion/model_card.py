"""Model card of a registered version in the Hugging Face Hub format, built from the registry and the check results."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth_assets.reporting.escaping import CELL_BYTES, escaped, metadata_line
from synth_assets.schemas.records import AdapterRecord, Clause, Decision, RecordedDecision

SCORE = "score."  # prefix of the tags that synth_assets/registry/tags.py writes: score.<suite>.<split>.<metric>
SCORE_FACTS = {"value", "n", "ci_low", "ci_high", "interval", "run_id"}
NAME = re.compile(r"[A-Za-z0-9][\w.@\[\]-]*", re.ASCII)
REASON_BYTES = 2_000
CARD_SETTINGS = ("learning_rate", "epochs", "schedule", "batch_size", "accumulation", "rank", "alpha", "beta", "seed")


@dataclass(frozen=True)
class AttachedScore:
    """A score that the registry holds for one version.

    Args:
        suite: benchmark suite.
        split: split of the suite.
        metric: metric of the suite, 0..1.
        facts: value, n, ci_low, ci_high, interval, and run_id of the MLflow run that holds the per-item scores.
    """

    suite: str
    split: str
    metric: str
    facts: Mapping[str, Any]


def attached_scores(tags: Mapping[str, str]) -> list[AttachedScore]:
    """Return the scores in a version's tags by suite, split and metric; tags that do not parse are skipped."""
    scores: list[AttachedScore] = []
    for name, text in sorted(tags.items()):
        parts, facts = name.removeprefix(SCORE).split(".", 2), _facts(text)
        if name.startswith(SCORE) and len(parts) == 3 and facts.keys() >= SCORE_FACTS:
            scores.append(AttachedScore(*parts, facts=facts))
    return scores


def _facts(text: str) -> Mapping[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def model_card(
    record: AdapterRecord,
    tags: Mapping[str, str],
    decision: Decision,
    checks: Mapping[str, int],
    data_versions: Mapping[str, str],
    earlier: Sequence[RecordedDecision] = (),
) -> str:
    """Return Markdown with the Hub's YAML header: base, data, settings, cost, scores with intervals, decision.

    Text from people or registry tags is escaped: it is rendered neither as Markdown nor as HTML.

    Args:
        record: the adapter.
        tags: tags of its version in the registry.
        decision: the decision by which it serves, else the last decision about it.
        checks: number of checks on its data and scores, by status.
        data_versions: data version of everything upstream, by asset.
        earlier: other decisions about it, oldest first.
    """
    scores = attached_scores(tags)
    sections = [
        _header(record, scores),
        f"# {_name(record.name)}, version {_text(decision.candidate_version)}\n\n{record.method} on "
        f"{_code(record.base)} (revision {_code(record.base_revision)}). This card is generated from the registry and "
        "the check results.",
        _scores(scores),
        _decision(decision, checks),
        *([_earlier(earlier)] if earlier else []),
        _training(record),
        _data(data_versions),
    ]
    return "\n\n".join(sections) + "\n"


def _header(record: AdapterRecord, scores: Sequence[AttachedScore]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=score.suite,
            dataset_name=score.suite,
            dataset_split=score.split,
            metric_type=score.metric,
            metric_value=score.facts["value"],
        )
        for score in scores
        if score.split == "test"
    ]
    data = ModelCardData(
        base_model=record.base,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["synth-assets", record.method],
        model_name=record.name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _scores(scores: Sequence[AttachedScore]) -> str:
    if not scores:
        return "## Scores\n\nNot scored."
    rows = [
        f"| {_name(s.suite)} | {_name(s.split)} | {_name(s.metric)} | {s.facts['value']:.3f} | {_n(s)} "
        f"| {s.facts['ci_low']:.3f} to {s.facts['ci_high']:.3f} ({_text(str(s.facts['interval']))}) "
        f"| {_code(str(s.facts['run_id'])[:8])} |"
        for s in scores
    ]
    head = ["| suite | split | metric | value | n | interval | MLflow run |", "|---|---|---|---:|---:|---|---|"]
    return "\n".join(["## Scores\n", *head, *rows])


def _n(score: AttachedScore) -> str:
    """Return the number of items, and how many are left out because the model cannot answer them."""
    left_out = score.facts.get("unanswerable", 0)
    return f"{score.facts['n']:,}" + (f", {left_out:,} left out" if left_out else "")


def _decision(decision: Decision, checks: Mapping[str, int]) -> str:
    table = clause_table(decision.clauses) if decision.clauses else ""
    counts = ", ".join(f"{number} {status}" for status, number in sorted(checks.items())) or "none"
    outcome = f"{decision.outcome} against {_against(decision)}: {_text(decision.reason, REASON_BYTES)}."
    return "\n\n".join(["## Promotion", outcome, f"Checks: {counts}.", *([table] if table else [])])


def clause_table(clauses: Sequence[Clause]) -> str:
    """Return clauses as a Markdown table."""
    rows = [
        f"| {_text(each.name)} | {'yes' if each.passed else 'no'} | {_text(each.actual)} | {_text(each.expected)} |"
        for each in clauses
    ]
    return "\n".join(["| clause | passed | actual | expected |", "|---|---|---|---|", *rows])


def _earlier(records: Sequence[RecordedDecision]) -> str:
    """Return one line for each earlier decision, and the clauses of the last promotion among them."""
    lines = [
        f"- {_text(record.at)}, requested by {_text(record.by)}: {record.decision.outcome} against "
        f"{_against(record.decision)}: {_text(record.decision.reason, REASON_BYTES)}"
        for record in records
    ]
    decisions = [record.decision for record in records]
    promoted = [decision.clauses for decision in decisions if decision.outcome == "promoted" and decision.clauses]
    return "\n\n".join(["## Earlier decisions", "\n".join(lines), *map(clause_table, promoted[-1:])])


def _against(decision: Decision) -> str:
    return f"version {_text(decision.opponent_version)}" if decision.opponent_version else "the base model"


def _text(text: str, limit_bytes: int = CELL_BYTES) -> str:
    """Return text escaped for Markdown, without turning addresses into links; `>` inside a line needs no escape."""
    return escaped(text, limit_bytes, addresses=False).replace("&gt;", ">")


def _name(text: str) -> str:
    """Return a plain name unchanged, anything else escaped."""
    return text if NAME.fullmatch(text) else _text(text)


def _code(text: str) -> str:
    return f"`{metadata_line(text).replace('`', chr(39))}`"


def _training(record: AdapterRecord) -> str:
    settings = [f"- {name}: {record.spec[name]}" for name in CARD_SETTINGS if name in record.spec]
    facts = [
        f"- trainable parameters: {record.trainable_parameters:,} of {record.total_parameters:,}",
        f"- seconds: {record.seconds:,.0f}, at {record.tokens_per_s:,.0f} tokens/s, padding excluded",
        f"- peak memory: {record.peak_memory_bytes / 2**20:,.0f} MiB, {record.peak_memory_kind}",
        f"- price: {record.cost_usd:.2f} USD",
    ]
    return "\n".join(["## Training\n", *settings, *facts])


def _data(data_versions: Mapping[str, str]) -> str:
    rows = [f"- {_name(name)}: {_code(version)}" for name, version in sorted(data_versions.items())]
    return "\n".join(["## Data\n", *rows, "\n`synth trace` lists the rows behind each version."])
