"""Canonical JSON of records, and fingerprints."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

R = TypeVar("R")

ALIASES: Mapping[str, Mapping[str, str]] = {"Clause": {"found": "actual", "wanted": "expected"}}
"""Record -> field name in homes of earlier versions -> current name."""

FORMER_CLAUSE_NAMES: Mapping[str, str] = {
    "same items": "paired items",
    "items answered": "item coverage",
    "not by chance": "significance",
    "safety kept": "non-inferiority: safety",
    "knowledge kept": "non-inferiority: knowledge",
    "not tainted": "no recalled rows",
    "rollback asked for": "rollback requested",
}
"""Clause names in decisions of earlier versions -> present names."""

FORMER_VALUES: Mapping[str, Mapping[str, Mapping[str, str]]] = {"Clause": {"name": FORMER_CLAUSE_NAMES}}
"""Record -> field -> values in homes of earlier versions -> present values; applied wherever a record is read."""


def to_json(record: object) -> str:
    """Return a record as canonical JSON with sorted keys, so that equal records have equal text."""
    if not is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"a record must be a dataclass instance, got {type(record).__name__}")
    return json.dumps(asdict(record), sort_keys=True, ensure_ascii=False, indent=1)


def from_json(kind: type[R], text: str) -> R:
    """Parse a record of type `kind` written by `to_json`. Raise ValueError for missing or unknown fields."""
    return _from_raw(kind, json.loads(text))


def fingerprint(*parts: object) -> str:
    """Return a hash of JSON values, mappings or dataclasses: 16 hex digits."""
    plain = [asdict(p) if is_dataclass(p) and not isinstance(p, type) else p for p in parts]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _from_raw(kind: type[R], raw: Any) -> R:  # noqa: ANN401 - a JSON value
    if not isinstance(raw, dict):
        raise ValueError(f"{kind.__name__}: expected a JSON object, got {type(raw).__name__}")
    aliases = ALIASES.get(kind.__name__, {})
    raw = {aliases.get(name, name): value for name, value in raw.items()}
    for name, present in FORMER_VALUES.get(kind.__name__, {}).items():
        if isinstance(raw.get(name), str):
            raw[name] = present.get(raw[name], raw[name])
    field_names = {f.name for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(raw) - field_names):
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    hints = get_type_hints(kind)
    try:
        return kind(**{name: _value(hints[name], value) for name, value in raw.items()})
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def _value(hint: Any, value: Any) -> Any:  # noqa: ANN401 - a JSON value
    """Convert the JSON value of a field, restoring nested records: one, one or None, or a list of them."""
    origin = get_origin(hint)
    parts = (hint, *(get_args(hint) if origin in (list, Union, UnionType) else ()))
    inner = next((part for part in parts if isinstance(part, type) and is_dataclass(part)), None)
    if inner is None or value is None:
        return value
    return [_from_raw(inner, entry) for entry in value] if origin is list else _from_raw(inner, value)
