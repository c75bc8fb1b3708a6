"""Which data made an asset, and what the checks said about exactly that data.

The event log holds both: each materialisation names the ones it read, and each check evaluation its target. Two
traps are stepped around. In a partitioned run the checks of an unpartitioned asset name no target: the run itself tells
which materialisation they saw. And the newest evaluation of a check may be of other data.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter, EventLogRecord

from synth_assets.schemas.records import CheckResult

DATA_VERSION = "dagster/data_version"
REMOVED = "removed"  # the data version that says: this partition was deleted, and is no input of later assets
INPUT_EVENT = "dagster/input_event_pointer/"
PAGE = 200
WAIT_S = 120.0  # for checks of the same run that are still at work
POLL_S = 0.5


class CheckResults(dg.ConfigurableResource):
    """The checks there are, by asset; filled by the composition root, so that one that never ran is missed."""

    checks: dict[str, list[str]]

    @classmethod
    def of(cls, definitions: Iterable[object]) -> "CheckResults":
        """From the assets and asset checks of a code location."""
        found: dict[str, list[str]] = {}
        for definition in definitions:
            for spec in getattr(definition, "check_specs", ()):
                found.setdefault(spec.asset_key.to_user_string(), []).append(spec.name)
        return cls(checks={asset: sorted(set(names)) for asset, names in sorted(found.items())})

    def verdicts(self, context: dg.AssetExecutionContext, versions: Mapping[str, str]) -> list[CheckResult]:
        """What all checks said about `versions`, after those of this run that are still at work."""
        deadline = time.monotonic() + WAIT_S
        while (found := check_verdicts(context.instance, versions, self.checks)) and time.monotonic() < deadline:
            missing = {(verdict.asset.partition("[")[0], verdict.check) for verdict in found if _is_missing(verdict)}
            if not any(_at_work(context, asset, check) for asset, check in missing):
                break
            time.sleep(POLL_S)
        return found


def upstream_versions(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Data versions of all that the running asset is made from, directly or not.

    Keys are asset names, for partitions with their key: "raw_instructions[2026-W47]". Of direct inputs the version in
    force counts, of their inputs the version that they read. Where two paths lead to different versions of one asset
    the nearest has the plain key and the others "name@version".
    """
    parents = context.assets_def.asset_deps[context.asset_key]
    return _closure(context.instance, [r for key in sorted(parents) for r in _in_force(context.instance, key, None)])


def removed_partition(key: dg.AssetKey, partition: str) -> dg.AssetMaterialization:
    """Return the event that says a partition was removed; what was made from it before keeps its lineage."""
    return dg.AssetMaterialization(key, partition=partition, tags={DATA_VERSION: REMOVED}, description=REMOVED)


def adapter_versions(instance: dg.DagsterInstance, asset: str, data_version: str) -> dict[str, str]:
    """The asset's own version, and those it was made from; empty where it never had that version."""
    return _closure(instance, list(_with_version(instance, dg.AssetKey(asset), None, data_version))[:1])


def json_metadata(instance: dg.DagsterInstance, asset: str, data_version: str, name: str) -> dict[str, Any]:
    """A JSON entry of the metadata that the newest materialisation of this data version left; empty without it."""
    for record in _with_version(instance, dg.AssetKey(asset), None, data_version):
        entry = record.asset_materialization.metadata.get(name) if record.asset_materialization else None
        return entry.value if isinstance(entry, dg.JsonMetadataValue) and isinstance(entry.value, dict) else {}
    return {}


def check_verdicts(
    instance: dg.DagsterInstance, versions: Mapping[str, str], checks: Mapping[str, Sequence[str]]
) -> list[CheckResult]:
    """For each version the newest evaluation of each check whose target has that data version.

    Args:
        instance: holds the event log.
        versions: as `upstream_versions` gives them.
        checks: asset -> names of its checks.

    Returns:
        one verdict per version and check; "missing" where the check never ran on that data.
    """
    found: list[CheckResult] = []
    for name, version in sorted(versions.items()):
        subject = _Subject.of(name, version)
        if names := checks.get(subject.key.to_user_string()):
            seen = list(_with_version(instance, subject.key, subject.partition, version))
            found += [_verdict(instance, subject, seen, check) for check in names]
    return found


@dataclass(frozen=True)
class _Subject:
    name: str
    key: dg.AssetKey
    partition: str | None
    version: str

    @classmethod
    def of(cls, name: str, version: str) -> "_Subject":
        asset, _, partition = name.partition("@")[0].partition("[")
        return cls(name, dg.AssetKey.from_user_string(asset), partition.removesuffix("]") or None, version)


def _verdict(
    instance: dg.DagsterInstance, subject: _Subject, seen: Sequence[EventLogRecord], check: str
) -> CheckResult:
    """`seen` are the materialisations with the subject's data version."""
    events, runs = {record.storage_id for record in seen}, {record.run_id for record in seen}
    for run_id, evaluation in _evaluations(instance, dg.AssetCheckKey(subject.key, check)):
        target = evaluation.target_materialization_data
        if evaluation.partition not in (None, subject.partition):
            continue
        if target.storage_id in events if target else run_id in runs:
            status = "passed" if evaluation.passed else "failed"
            if status == "failed" and evaluation.severity == dg.AssetCheckSeverity.WARN:
                status = "warned"
            return CheckResult(subject.name, subject.version, check, status, evaluation.description or "")
    return CheckResult(subject.name, subject.version, check, "missing", "never evaluated on this data")


def _evaluations(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Iterator[tuple[str, dg.AssetCheckEvaluation]]:
    """Newest first; planned ones have no evaluation and are passed over."""
    cursor = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(key, limit=PAGE, cursor=cursor)
        for record in page:
            if isinstance(evaluation := record.evaluation, dg.AssetCheckEvaluation):
                yield record.run_id, evaluation
        if len(page) < PAGE:
            return
        cursor = page[-1].id


def _materialisations(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, before: int | None = None
) -> Iterator[EventLogRecord]:
    """Newest first; of one partition, or of all."""
    where = AssetRecordsFilter(
        asset_key=key, asset_partitions=[partition] if partition else None, before_storage_id=before
    )
    cursor = None
    while True:
        page = instance.fetch_materializations(where, limit=PAGE, cursor=cursor)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def _with_version(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, version: str
) -> Iterator[EventLogRecord]:
    return (r for r in _materialisations(instance, key, partition) if _tags(r).get(DATA_VERSION) == version)


def _in_force(instance: dg.DagsterInstance, key: dg.AssetKey, before: int | None) -> list[EventLogRecord]:
    """The newest materialisation before an event; of a partitioned asset the newest of each that was not removed."""
    newest: dict[str | None, EventLogRecord] = {}
    for record in _materialisations(instance, key, None, before):
        newest.setdefault(record.partition_key, record)
        if record.partition_key is None:
            break
    present = {key: record for key, record in newest.items() if _tags(record).get(DATA_VERSION) != REMOVED}
    return [present[partition] for partition in sorted(present, key=lambda p: p or "")]


def _closure(instance: dg.DagsterInstance, start: Sequence[EventLogRecord]) -> dict[str, str]:
    found: dict[str, str] = {}
    visited: set[int] = set()
    waiting = deque(start)
    while waiting:
        record = waiting.popleft()
        if record.storage_id in visited or record.asset_key is None:
            continue
        visited.add(record.storage_id)
        name = record.asset_key.to_user_string() + (f"[{record.partition_key}]" if record.partition_key else "")
        version = _tags(record).get(DATA_VERSION, "")
        if found.setdefault(name, version) != version:
            found[f"{name}@{version}"] = version
        for tag, pointer in _tags(record).items():
            if tag.startswith(INPUT_EVENT) and pointer.isdigit():
                key = dg.AssetKey.from_user_string(tag.removeprefix(INPUT_EVENT))
                waiting += _in_force(instance, key, int(pointer) + 1)
    return found


def _tags(record: EventLogRecord) -> Mapping[str, str]:
    materialisation = record.asset_materialization
    return materialisation.tags or {} if materialisation else {}


def _is_missing(verdict: CheckResult) -> bool:
    return verdict.status == "missing"


def _at_work(context: dg.AssetExecutionContext, asset: str, check: str) -> bool:
    """Whether this run has planned the check and not yet evaluated it."""
    key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), check)
    newest = context.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    if not newest or newest[0].run_id != context.run.run_id:
        return False
    return not isinstance(newest[0].evaluation, dg.AssetCheckEvaluation)
