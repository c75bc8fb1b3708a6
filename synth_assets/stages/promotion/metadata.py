"""Metadata of the materialisations of the stage promotion."""

from dataclasses import asdict
from typing import Any

import dagster as dg

from synth_assets.reporting.escaping import first_sections, metadata_line
from synth_assets.schemas.records import BASE, AuditEntry, ChampionRecord, Decision
from synth_assets.stages.promotion.champion import ServiceChange
from synth_assets.stages.promotion.decision import DecisionReport
from synth_assets.stages.promotion.model_card import attached_scores, clause_table
from synth_assets.stages.promotion.policy import PromotionPolicy


def decision_metadata(report: DecisionReport, policy: PromotionPolicy) -> dict[str, Any]:
    """Return the metadata of a decision: outcome, clauses, checks, policy and model card."""
    decision = report.decision
    return {
        "outcome": decision.outcome,
        "reason": metadata_line(decision.reason),
        "clauses": dg.MetadataValue.md(clause_table(decision.clauses)),
        "checks": dg.MetadataValue.json(dict(report.checks)),
        "policy": dg.MetadataValue.json(asdict(policy)),
        **({"model_card": dg.MetadataValue.md(first_sections(report.card))} if report.card else {}),
    }


def champion_metadata(change: ServiceChange, decision: Decision, audit: AuditEntry) -> dict[str, Any]:
    """Return the metadata of the champion: the serving version, and what this run decided and moved."""
    record = change.record
    return {
        **_service_metadata(record),
        **_lineage(change),
        "action": record.action if change.moved else "kept",
        "from": record.previous_version or BASE,
        "to": record.version or BASE,
        "who": record.moved_by,
        "when": record.moved_at,
        "flagged": record.flagged,
        "decision": decision.outcome,
        "judged": decision.candidate_version or "none",
        "asked_by": audit.who,
        "reason": metadata_line(decision.reason),
    }


def _lineage(change: ServiceChange) -> dict[str, dg.MetadataValue]:
    """Return what leads from the serving version to its data: the adapter's page, and what it was trained on."""
    record = change.record
    if not change.trained_on:
        return {}
    table = "\n".join(f"| {name} | `{version}` |" for name, version in sorted(change.trained_on.items()))
    return {
        "serves_adapter": dg.MetadataValue.asset(dg.AssetKey(record.name)),
        "trained_on": dg.MetadataValue.md(f"| asset | data version |\n|---|---|\n{table}"),
        "trace": dg.MetadataValue.text(f"synth trace {record.version}"),
        "serves_fingerprint": dg.MetadataValue.text(record.fingerprint),
    }


def _service_metadata(record: ChampionRecord) -> dict[str, dg.MetadataValue]:
    """Return metadata on the serving version, independent of this run's decision."""
    texts = {
        "serves": f"version {record.version} ({record.name})" if record.version else "the base model",
        "serves_batch": record.batch or "not recorded",
        "serves_since": record.moved_at,
        "serves_by": f"{record.action} by {record.moved_by}",
        "serves_because": record.reason,
    }
    scores = {f"{s.suite} {s.split} {s.metric}": s.facts["value"] for s in attached_scores(record.scores)}
    metadata: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.text(metadata_line(text)) for name, text in texts.items()
    }
    if record.clauses:
        metadata["serves_clauses"] = dg.MetadataValue.md(clause_table(record.clauses))
    return {**metadata, "serves_scores": dg.MetadataValue.json(scores)}
