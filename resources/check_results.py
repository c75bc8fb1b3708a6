"""Upstream data versions of an asset, and check results for exactly these versions.

Both come from the event log: each materialisation names its inputs, and each check evaluation its target. Two special
cases: in a partitioned run, checks of an unpartitioned asset have no target, so the run identifies the materialisation;
and the newest evaluation of a check may be of other data.
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
REMOVED = "removed"  # data version of a deleted partition, which is no input of later assets
INPUT_EVENT = "dagster/input_event_pointer/"
PAGE = 200
WAIT_S = 120.0  # for checks still running in the same run
POLL_S = 0.5


class CheckResults(dg.ConfigurableResource):
    """The checks of each asset; set by the composition root, so that a check that never ran counts as missing."""

    checks: dict[str, list[str]]

    @classmethod
    def of(cls, definitions: Iterable[object]) -> "CheckResults":
        """Create the resource from the assets and asset checks of a code location."""
        checks: dict[str, list[str]] = {}
        for definition in definitions:
            for spec in getattr(definition, "check_specs", ()):
                checks.setdefault(spec.asset_key.to_user_string(), []).append(spec.name)
        return cls(checks={asset: sorted(set(names)) for asset, names in sorted(checks.items())})

    def verdicts(self, context: dg.AssetExecutionContext, versions: Mapping[str, str]) -> list[CheckResult]:
        """Return the results of all checks on `versions`, waiting for those still running in this run."""
        deadline = time.monotonic() + WAIT_S
        while (results := check_verdicts(context.instance, versions, self.checks)) and time.monotonic() < deadline:
            missing = {(result.asset.partition("[")[0], result.check) for result in results if _is_missing(result)}
            if not any(_is_running(context, asset, check) for asset, check in missing):
                break
            time.sleep(POLL_S)
        return results


def upstream_versions(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Return the data versions of all direct and indirect inputs of the running asset.

    Keys are asset names, with the partition if there is one: "raw_instructions[2026-W47]". Of direct inputs the current
    version counts, of indirect ones the version that was read. If two paths lead to different versions of an asset, the
    nearest has the plain key and the others "name@version".
    """
    parents = context.assets_def.asset_deps[context.asset_key]
    return _closure(context.instance, [r for key in sorted(parents) for r in _in_force(context.instance, key, None)])


def removed_partition(key: dg.AssetKey, partition: str) -> dg.AssetMaterialization:
    """Return the event that marks a partition as removed; the lineage of earlier assets is kept."""
    return dg.AssetMaterialization(key, partition=partition, tags={DATA_VERSION: REMOVED}, description=REMOVED)


def adapter_versions(instance: dg.DagsterInstance, asset: str, data_version: str) -> dict[str, str]:
    """Return the asset's own data version and those of its inputs; empty if it never had that version."""
    record = materialisation_of(instance, asset, data_version)
    return _closure(instance, [record] if record else [])


def materialisation_of(instance: dg.DagsterInstance, name: str, data_version: str) -> EventLogRecord | None:
    """Return the newest materialisation of an asset, named as in `upstream_versions`, with this data version."""
    subject = _Subject.of(name, data_version)
    return next(_with_version(instance, subject.key, subject.partition, data_version), None)


def json_metadata(instance: dg.DagsterInstance, asset: str, data_version: str, name: str) -> dict[str, Any]:
    """Return a JSON metadata entry of the newest materialisation with this data version; empty if there is none."""
    record = materialisation_of(instance, asset, data_version)
    entry = record.asset_materialization.metadata.get(name) if record and record.asset_materialization else None
    return entry.value if isinstance(entry, dg.JsonMetadataValue) and isinstance(entry.value, dict) else {}


def check_verdicts(
    instance: dg.DagsterInstance, versions: Mapping[str, str], checks: Mapping[str, Sequence[str]]
) -> list[CheckResult]:
    """Return for each version the newest evaluation of each check on that data version.

    Args:
        instance: the Dagster instance.
        versions: as returned by `upstream_versions`.
        checks: asset -> names of its checks.

    Returns:
        One result per version and check; "missing" if the check never ran on that data.
    """
    results: list[CheckResult] = []
    for name, version in sorted(versions.items()):
        subject = _Subject.of(name, version)
        if names := checks.get(subject.key.to_user_string()):
            materialisations = list(_with_version(instance, subject.key, subject.partition, version))
            results += [_check_result(instance, subject, materialisations, check) for check in names]
    return results


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


def _check_result(
    instance: dg.DagsterInstance, subject: _Subject, materialisations: Sequence[EventLogRecord], check: str
) -> CheckResult:
    """Return the newest result of a check; `materialisations` are those with the subject's data version."""
    events, runs = {record.storage_id for record in materialisations}, {record.run_id for record in materialisations}
    for run_id, evaluation in evaluations_of(instance, dg.AssetCheckKey(subject.key, check)):
        target = evaluation.target_materialization_data
        if evaluation.partition not in (None, subject.partition):
            continue
        if target.storage_id in events if target else run_id in runs:
            status = "passed" if evaluation.passed else "failed"
            if status == "failed" and evaluation.severity == dg.AssetCheckSeverity.WARN:
                status = "warned"
            return CheckResult(subject.name, subject.version, check, status, evaluation.description or "")
    return CheckResult(subject.name, subject.version, check, "missing", "never evaluated on this data version")


def evaluations_of(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey
) -> Iterator[tuple[str, dg.AssetCheckEvaluation]]:
    """Yield the evaluations of a check, newest first, without planned ones."""
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
    """Yield the materialisations of an asset or of one partition, newest first."""
    records_filter = AssetRecordsFilter(
        asset_key=key, asset_partitions=[partition] if partition else None, before_storage_id=before
    )
    cursor = None
    while True:
        page = instance.fetch_materializations(records_filter, limit=PAGE, cursor=cursor)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def _with_version(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, version: str
) -> Iterator[EventLogRecord]:
    return (r for r in _materialisations(instance, key, partition) if _tags(r).get(DATA_VERSION) == version)


def _in_force(instance: dg.DagsterInstance, key: dg.AssetKey, before: int | None) -> list[EventLogRecord]:
    """Return the newest materialisation before an event; for a partitioned asset, one per partition not removed."""
    newest: dict[str | None, EventLogRecord] = {}
    for record in _materialisations(instance, key, None, before):
        newest.setdefault(record.partition_key, record)
        if record.partition_key is None:
            break
    present = {key: record for key, record in newest.items() if _tags(record).get(DATA_VERSION) != REMOVED}
    return [present[partition] for partition in sorted(present, key=lambda p: p or "")]


def _closure(instance: dg.DagsterInstance, start: Sequence[EventLogRecord]) -> dict[str, str]:
    versions: dict[str, str] = {}
    visited: set[int] = set()
    queue = deque(start)
    while queue:
        record = queue.popleft()
        if record.storage_id in visited or record.asset_key is None:
            continue
        visited.add(record.storage_id)
        name = record.asset_key.to_user_string() + (f"[{record.partition_key}]" if record.partition_key else "")
        version = _tags(record).get(DATA_VERSION, "")
        if versions.setdefault(name, version) != version:
            versions[f"{name}@{version}"] = version
        for tag, pointer in _tags(record).items():
            if tag.startswith(INPUT_EVENT) and pointer.isdigit():
                key = dg.AssetKey.from_user_string(tag.removeprefix(INPUT_EVENT))
                queue += _in_force(instance, key, int(pointer) + 1)
    return versions


def _tags(record: EventLogRecord) -> Mapping[str, str]:
    materialisation = record.asset_materialization
    return materialisation.tags or {} if materialisation else {}


def _is_missing(result: CheckResult) -> bool:
    return result.status == "missing"


def _is_running(context: dg.AssetExecutionContext, asset: str, check: str) -> bool:
    """Return whether this run has planned the check and not evaluated it yet."""
    key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), check)
    newest = context.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    if not newest or newest[0].run_id != context.run.run_id:
        return False
    return not isinstance(newest[0].evaluation, dg.AssetCheckEvaluation)
