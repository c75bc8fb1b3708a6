"""History of the versions that served.

The alias `@champion` names the serving version; a log explains how each version came to serve. The log is stored as
numbered tags of the registered model, so that it is deleted together with the model. A move made in MLflow is not in
the log: that service is derived from the alias and the versions' tags.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from synth_assets.stages.promotion.candidates import CHAMPION, ROLLED_BACK_AT, Registry

Action = Literal["promoted", "rolled back", "moved by hand", "kept"]
MOVE = "champion.move."
MOVE_TAG = re.compile(r"champion\.move\.[0-9]{6}")
MANUAL = "a person in MLflow"
REASON_CHARACTERS = 1_000  # some databases limit a tag to 5,000 bytes


class ServiceHistoryError(RuntimeError):
    """The alias may not be moved; the message gives the cause and the remedy."""


@dataclass(frozen=True)
class Service:
    """A period in which one version served.

    Args:
        version: version number; empty for the base model.
        action: how it came to serve; "kept" is the base model before the first move.
        by: who moved the alias.
        at: when, ISO 8601, UTC; empty if not recorded.
        run_id: run id of Dagster.
        reason: one line of at most REASON_CHARACTERS.
        fingerprint: fingerprint of the adapter; a version of the same number with another one is a different version.
        flagged: whether it was moved in MLflow although the policy refuses it.
    """

    version: str
    action: Action
    by: str
    at: str
    run_id: str
    reason: str
    fingerprint: str = ""
    flagged: bool = False


def serving_version(registry: Registry) -> str:
    """Return the version that `@champion` points to; empty if there is none, so that the base model serves."""
    version = registry.alias(CHAMPION) or ""
    return version if _tags_if_exists(registry, version) is not None else ""


def services(registry: Registry) -> list[Service]:
    """Return every service, oldest first; the last one is current. Empty if only the base model ever served."""
    history = _logged_services(registry) or _tagged_services(registry)
    serving = serving_version(registry)
    if serving == (history[-1].version if history else ""):
        return history
    return [*history, _unlogged_service(registry, serving, history)]


def save_services(registry: Registry, history: Sequence[Service]) -> None:
    """Update the log to `history`, which starts with the log's entries; the last of these may have changed."""
    logged = {name: text for name, text in sorted(registry.model_tags().items()) if MOVE_TAG.fullmatch(name)}
    newest = max((int(name.removeprefix(MOVE)) for name in logged), default=0)
    names = [*logged, *(f"{MOVE}{newest + number:06}" for number in range(1, len(history) - len(logged) + 1))]
    for name, service in zip(names, history, strict=True):
        if (entry := json.dumps(asdict(service), sort_keys=True, ensure_ascii=False)) != logged.get(name):
            registry.tag_model(name, entry)


def rollback_targets(history: Sequence[Service]) -> list[Service]:
    """Return the services that a rollback may return to, latest first.

    A rollback discards every service after its target, so that two rollbacks go back two versions and never forward. A
    move made in MLflow discards none.
    """
    standing: list[Service] = []
    for service in history:
        if service.action == "rolled back":
            while standing and standing.pop().version != service.version:
                continue
        standing.append(service)
    nearest: dict[str, Service] = {}
    for service in reversed(standing):
        nearest.setdefault(service.version, service)
    return [
        service
        for version, service in nearest.items()
        if version and version != (history[-1].version if history else "")
    ]


def version_exists(registry: Registry, service: Service) -> bool:
    """Return whether the version of a service is still in the registry."""
    tags = _tags_if_exists(registry, service.version)
    return tags is not None and (not service.fingerprint or tags.get("fingerprint", "") == service.fingerprint)


def version_before(registry: Registry) -> str:
    """Return the last version that served before the present one and still exists; empty if there is none."""
    return next(
        (service.version for service in rollback_targets(services(registry)) if version_exists(registry, service)), ""
    )


def _logged_services(registry: Registry) -> list[Service]:
    entries = sorted((name, text) for name, text in registry.model_tags().items() if MOVE_TAG.fullmatch(name))
    known = {field.name for field in fields(Service)}
    history: list[Service] = []
    for name, text in entries:
        try:
            raw: dict[str, Any] = json.loads(text)
            history.append(Service(**{field: value for field, value in raw.items() if field in known}))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the tag {name} of the registered model is not an entry of the champion log ({error}): "
                f"restore it, or delete every tag that begins with {MOVE}"
            ) from error
    return history


def _tagged_services(registry: Registry) -> list[Service]:
    """Return the services that the versions' tags record, for registries from before the log."""
    moved = [
        Service(
            version=number,
            action="promoted",
            by=tags.get("champion.moved_by", ""),
            at=tags["champion.moved_at"],
            run_id=tags.get("champion.run_id", ""),
            reason=tags.get("decision.reason", ""),
            fingerprint=tags.get("fingerprint", ""),
        )
        for number, tags in registry.versions().items()
        if "champion.moved_at" in tags and tags.get(ROLLED_BACK_AT, "") < tags["champion.moved_at"]
    ]
    return sorted(moved, key=lambda service: service.at)


def _unlogged_service(registry: Registry, serving: str, history: Sequence[Service]) -> Service:
    """Return the current service that the log does not hold: a move by a killed run, or one made in MLflow."""
    tags = _tags_if_exists(registry, serving) or {}
    last = history[-1] if history else None
    known, since = (last.version, last.at) if last else ("", "")
    moved_at = tags.get("champion.moved_at", "")
    logged = any((service.version, service.at) == (serving, moved_at) for service in history)
    fingerprint = tags.get("fingerprint", "")
    if moved_at and not logged and moved_at >= since and tags.get("champion.from") == known:
        action: Action = "rolled back" if tags.get("champion.action") == "rolled back" else "promoted"
        trail = (tags.get("champion.moved_by", ""), moved_at, tags.get("champion.run_id", ""))
        return Service(serving, action, *trail, tags.get("champion.reason", ""), fingerprint)
    left_tags = _tags_if_exists(registry, known) or {}
    if not serving and left_tags.get(ROLLED_BACK_AT, "") >= since and ROLLED_BACK_AT in left_tags:
        return Service(
            "", "rolled back", left_tags.get("champion.rolled_back_by", ""), left_tags[ROLLED_BACK_AT], "", ""
        )
    return Service(serving, "moved by hand", MANUAL, "", "", _manual_reason(registry, serving, last), fingerprint)


def _manual_reason(registry: Registry, serving: str, last: Service | None) -> str:
    alias = registry.alias(CHAMPION)
    if serving:
        return f"@champion was moved to version {serving} in MLflow"
    if alias:
        return f"@champion points to version {alias}, which does not exist"
    if last and not version_exists(registry, last):
        return f"version {last.version}, which served, was deleted in MLflow"
    return "@champion was removed in MLflow"


def _tags_if_exists(registry: Registry, version: str) -> Mapping[str, str] | None:
    """Return the tags of a version; None if it does not exist."""
    if not version:
        return None
    try:
        return registry.version_tags(version)
    except KeyError:
        return None
