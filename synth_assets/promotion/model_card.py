"""The card of a model version, in the hub's format, from what the registry and the checks say and nothing else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth_assets.records import AdapterRecord, Decision

SCORE = "score."  # of the tags that resources/registry_entries.py writes: score.<suite>.<split>.<metric>
SHOWN_SETTINGS = ("learning_rate", "epochs", "schedule", "batch_size", "accumulation", "rank", "alpha", "beta", "seed")


@dataclass(frozen=True)
class AttachedScore:
    """A score as the registry holds it for one version.

    Args:
        suite: what was asked.
        split: of the suite.
        metric: of the suite, 0..1.
        facts: value, n, ci_low, ci_high, interval, run_id of the MLflow run that holds the items.
    """

    suite: str
    split: str
    metric: str
    facts: Mapping[str, Any]


def attached_scores(tags: Mapping[str, str]) -> list[AttachedScore]:
    """The scores among the tags of a version, by suite, split and metric."""
    found = {name.removeprefix(SCORE): json.loads(text) for name, text in tags.items() if name.startswith(SCORE)}
    return [AttachedScore(*name.split(".", 2), facts=facts) for name, facts in sorted(found.items())]


def model_card(
    record: AdapterRecord,
    tags: Mapping[str, str],
    decision: Decision,
    checks: Mapping[str, int],
    data_versions: Mapping[str, str],
) -> str:
    """Markdown with the hub's header: base model, data, settings, cost, scores with n and interval, the decision.

    Args:
        record: the adapter.
        tags: of its version in the registry.
        decision: the last one on it.
        checks: how many of the checks on its data and scores ended how.
        data_versions: all that it was made from, by asset.
    """
    scores = attached_scores(tags)
    sections = [
        _header(record, scores),
        f"# {record.name}, version {decision.candidate_version}\n\n{record.method} on `{record.base}` "
        f"(revision `{record.base_revision}`). This card was written from the registry and the checks.",
        _scores(scores),
        _decision(decision, checks),
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
        return "## Scores\n\nIt was not scored."
    rows = [
        f"| {s.suite} | {s.split} | {s.metric} | {s.facts['value']:.3f} | {_n(s)} "
        f"| {s.facts['ci_low']:.3f} to {s.facts['ci_high']:.3f} ({s.facts['interval']}) | `{s.facts['run_id'][:8]}` |"
        for s in scores
    ]
    head = ["| suite | split | metric | value | n | interval | MLflow run |", "|---|---|---|---:|---:|---|---|"]
    return "\n".join(["## Scores\n", *head, *rows])


def _n(score: AttachedScore) -> str:
    """Return the number of items, and how many are left out because the model cannot take them."""
    left_out = score.facts.get("unanswerable", 0)
    return f"{score.facts['n']:,}" + (f", {left_out:,} left out" if left_out else "")


def _decision(decision: Decision, checks: Mapping[str, int]) -> str:
    against = f"version {decision.opponent_version}" if decision.opponent_version else "the base model"
    clauses = [f"| {c.name} | {'yes' if c.passed else 'no'} | {c.found} | {c.wanted} |" for c in decision.clauses]
    table = "\n".join(["| clause | held | found | wanted |", "|---|---|---|---|", *clauses]) if clauses else ""
    told = ", ".join(f"{number} {status}" for status, number in sorted(checks.items())) or "none"
    outcome = f"{decision.outcome} against {against}: {decision.reason}."
    return "\n\n".join(["## Promotion", outcome, f"Checks: {told}.", *([table] if table else [])])


def _training(record: AdapterRecord) -> str:
    settings = [f"- {name}: {record.spec[name]}" for name in SHOWN_SETTINGS if name in record.spec]
    facts = [
        f"- trainable parameters: {record.trainable_parameters:,} of {record.total_parameters:,}",
        f"- seconds: {record.seconds:,.0f}, at {record.tokens_per_s:,.0f} tokens/s without padding",
        f"- peak memory: {record.peak_memory_bytes / 2**20:,.0f} MiB, {record.peak_memory_kind}",
        f"- price: {record.cost_usd:.2f} USD",
    ]
    return "\n".join(["## Training\n", *settings, *facts])


def _data(data_versions: Mapping[str, str]) -> str:
    rows = [f"- {name}: `{version}`" for name, version in sorted(data_versions.items())]
    return "\n".join(["## Made from\n", *rows, "\nThe rows behind each are found by `synth trace`."])
