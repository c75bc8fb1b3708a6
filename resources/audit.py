"""Record who requested a run, when, and which run it is."""

from datetime import UTC, datetime

import dagster as dg

from resources.deployment import person
from synth_assets.reporting.escaping import metadata_line
from synth_assets.schemas.records import AuditEntry


def audit_entry(context: dg.AssetExecutionContext) -> AuditEntry:
    """Return the audit entry of this step: the person or the trigger in the run's tags, else the user, and now."""
    tags = context.run.tags
    who = tags.get("by") or tags.get("trigger") or person()
    return AuditEntry(metadata_line(who), datetime.now(UTC).isoformat(), context.run.run_id)
