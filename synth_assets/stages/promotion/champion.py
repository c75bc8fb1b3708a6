"""Carry out a decision: move `@champion` and keep the record of the version that serves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import model_version
from synth_assets.registry.retry import TrackingError
from synth_assets.reporting.escaping import metadata_line
from synth_assets.schemas.records import AuditEntry, ChampionRecord, Decision
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.promotion.alias import apply_decision
from synth_assets.stages.promotion.decision import store_decision, with_stored_clauses
from synth_assets.storage.lineage import LineageError
from synth_assets.training.methods import ADAPTERS


@dataclass(frozen=True)
class ServiceChange:
    """The record of the serving version, whether this decision moved the alias, and warnings for the log."""

    record: ChampionRecord
    moved: bool
    trained_on: Mapping[str, str] = field(default_factory=dict)  # asset -> data version, of the serving version
    warnings: tuple[str, ...] = ()

    @property
    def data_version(self) -> str:
        """Data version of the record: which version serves."""
        return fingerprint(self.record.version, self.record.fingerprint)


def carry_out(
    tracker: MlflowTracker,
    decision: Decision,
    last_record: Callable[[], ChampionRecord | None],
    audit: AuditEntry,
) -> ServiceChange:
    """Move the alias as decided, under the promotion lock, and store a rollback with the version it is about.

    Args:
        tracker: the model registry.
        decision: the decision.
        last_record: returns the last record of the champion, or None; called under the lock.
        audit: entry of the audit trail.

    Raises:
        ServiceHistoryError: the decision was made against another champion.
    """
    with tracker.lock("promotion"):
        before = last_record()
        record = apply_decision(tracker, decision, before, audit)
    warnings = []
    moved = before is None or (before.version, before.moved_at) != (record.version, record.moved_at)
    if moved and record.version and record.action == "rolled back":
        try:
            store_decision(tracker, decision, audit, ({}, {}), challenger=False)
        except (LineageError, TrackingError) as error:
            warnings.append(f"Version {record.version} serves, but its model card could not be written: {error}")
    record = with_stored_clauses(tracker, record)
    if record.flagged:
        reason = metadata_line(record.reason)
        warnings.append(f"@champion was moved to version {record.version} in MLflow: {reason}")
    return ServiceChange(record, moved, _trained_on(tracker, record), tuple(warnings))


def _trained_on(tracker: MlflowTracker, record: ChampionRecord) -> Mapping[str, str]:
    """Return what the serving version was trained on; empty for the base model or an unknown lineage.

    Upstream of `champion` are the newest adapters. The version that serves may be older, so it names its own inputs.
    """
    if not record.version or record.name not in ADAPTERS:
        return {}
    try:
        return model_version(tracker, record.version).data_versions
    except LineageError:
        return {}
