"""Which versions served, in order: the alias says who serves, and a log beside it explains how that came about.

The log is kept as numbered tags of the registered model, so that it lives and dies with the versions that it names. An
alias that was moved in MLflow is in no log: the last service is then derived from the alias and the versions' tags.
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
BY_HAND = "a person in MLflow"
REASON_CHARACTERS = 1_000  # a tag of the model takes 5,000 bytes in some databases


class ServiceHistoryError(RuntimeError):
    """The alias may not be moved; the message says why and what to do."""


@dataclass(frozen=True)
class Service:
    """A stretch of time in which one version served.

    Args:
        version: of the registered model; empty for the base model.
        action: how it came to serve; "kept" is the base before anything was moved.
        by: who moved the alias.
        at: when, ISO 8601, UTC; empty where nobody recorded it.
        run_id: of Dagster.
        reason: why; one line of at most REASON_CHARACTERS.
        fingerprint: of the adapter; a version of the same number with another one is not this version.
        flagged: moved by hand where the policy refuses it.
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
    """Return the version that `@champion` points to; empty where it points to none that exists, so the base serves."""
    version = registry.alias(CHAMPION) or ""
    return version if _tags(registry, version) is not None else ""


def services(registry: Registry) -> list[Service]:
    """Return every service, oldest first; the last one is in force. Empty where nothing ever served but the base."""
    past = _logged(registry) or _tagged(registry)
    serving = serving_version(registry)
    if serving == (past[-1].version if past else ""):
        return past
    return [*past, _unlogged(registry, serving, past)]


def keep(registry: Registry, past: Sequence[Service]) -> None:
    """Write to the log what it does not hold of `past`, which has its entries first, the last one perhaps changed."""
    held = {name: text for name, text in sorted(registry.model_tags().items()) if MOVE_TAG.fullmatch(name)}
    newest = max((int(name.removeprefix(MOVE)) for name in held), default=0)
    names = [*held, *(f"{MOVE}{newest + number:06}" for number in range(1, len(past) - len(held) + 1))]
    for name, service in zip(names, past, strict=True):
        if (entry := json.dumps(asdict(service), sort_keys=True, ensure_ascii=False)) != held.get(name):
            registry.tag_model(name, entry)


def way_back(past: Sequence[Service]) -> list[Service]:
    """Return the services that a rollback may return to, nearest first.

    A rollback ends every service after the one that it returns to, so that rolling back twice goes back two versions
    and never forward again. A move by hand ends none.
    """
    standing: list[Service] = []
    for service in past:
        if service.action == "rolled back":
            while standing and standing.pop().version != service.version:
                continue
        standing.append(service)
    nearest: dict[str, Service] = {}
    for service in reversed(standing):
        nearest.setdefault(service.version, service)
    return [one for version, one in nearest.items() if version and version != (past[-1].version if past else "")]


def exists(registry: Registry, service: Service) -> bool:
    """Whether the version of a service is still in the registry."""
    tags = _tags(registry, service.version)
    return tags is not None and (not service.fingerprint or tags.get("fingerprint", "") == service.fingerprint)


def version_before(registry: Registry) -> str:
    """Return the last version that served before the present one and still exists; empty where there is none."""
    return next((one.version for one in way_back(services(registry)) if exists(registry, one)), "")


def _logged(registry: Registry) -> list[Service]:
    entries = sorted((name, text) for name, text in registry.model_tags().items() if MOVE_TAG.fullmatch(name))
    known = {field.name for field in fields(Service)}
    past: list[Service] = []
    for name, text in entries:
        try:
            raw: dict[str, Any] = json.loads(text)
            past.append(Service(**{field: value for field, value in raw.items() if field in known}))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the tag {name} of the registered model is not an entry of the log of champions ({error}): "
                f"restore it, or delete every tag that begins with {MOVE}"
            ) from error
    return past


def _tagged(registry: Registry) -> list[Service]:
    """The order of service by the tags of the versions, as registries hold it that have no log yet."""
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


def _unlogged(registry: Registry, serving: str, past: Sequence[Service]) -> Service:
    """The service in force where the log does not end with it: a move that a killed run left, or one by hand."""
    tags = _tags(registry, serving) or {}
    last = past[-1] if past else None
    known, since = (last.version, last.at) if last else ("", "")
    moved_at = tags.get("champion.moved_at", "")
    logged = any((one.version, one.at) == (serving, moved_at) for one in past)
    fingerprint = tags.get("fingerprint", "")
    if moved_at and not logged and moved_at >= since and tags.get("champion.from") == known:
        action: Action = "rolled back" if tags.get("champion.action") == "rolled back" else "promoted"
        trail = (tags.get("champion.moved_by", ""), moved_at, tags.get("champion.run_id", ""))
        return Service(serving, action, *trail, tags.get("champion.reason", ""), fingerprint)
    left = _tags(registry, known) or {}
    if not serving and left.get(ROLLED_BACK_AT, "") >= since and ROLLED_BACK_AT in left:
        return Service("", "rolled back", left.get("champion.rolled_back_by", ""), left[ROLLED_BACK_AT], "", "")
    return Service(serving, "moved by hand", BY_HAND, "", "", _by_hand(registry, serving, last), fingerprint)


def _by_hand(registry: Registry, serving: str, last: Service | None) -> str:
    pointed = registry.alias(CHAMPION)
    if serving:
        return f"@champion was moved to version {serving} in MLflow"
    if pointed:
        return f"@champion points to version {pointed}, which does not exist"
    if last and not exists(registry, last):
        return f"version {last.version}, which served, was deleted in MLflow"
    return "@champion was removed in MLflow"


def _tags(registry: Registry, version: str) -> Mapping[str, str] | None:
    """The tags of a version; None where it does not exist."""
    if not version:
        return None
    try:
        return registry.version_tags(version)
    except KeyError:
        return None
