"""Derive run config classes from specs, so that no field is declared twice."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import dagster as dg
from pydantic import Field as ConfigField
from pydantic import create_model

DESCRIPTION = "description"


def config_of(*specs: type, leave_out: Sequence[str] = ()) -> type[dg.Config]:
    """Return a config class with the fields of specs, all optional; a field that is not set keeps its default.

    The launchpad shows each field's description, its allowed values and the spec's default. The default of a run may
    differ: settings of the model's size and of the hardware tier replace it (`Hardware.spec`).

    Args:
        specs: dataclasses without a common field; `metadata["description"]` of a field describes it.
        leave_out: fields that a run must not set.
    """
    config_fields: dict[str, Any] = {
        field.name: (_config_type(hints[field.name]) | None, ConfigField(None, description=_description(field, hints)))
        for spec in specs
        for hints in [get_type_hints(spec)]
        for field in fields(spec)
        if field.name not in leave_out
    }
    return create_model(f"{specs[0].__name__}Fields", __base__=dg.Config, **config_fields)


def _config_type(hint: Any) -> Any:  # noqa: ANN401 - a type
    """Return the type of a field in Dagster's config: lists, maps and scalars."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (hint,) = (part for part in arguments if part is not NoneType)
        return _config_type(hint)
    if origin is Literal:
        return type(arguments[0])
    if origin is not None and issubclass(origin, Mapping):
        return dict[_config_type(arguments[0]), _config_type(arguments[1])]
    if origin is not None and issubclass(origin, Sequence):
        return list[_config_type(arguments[0])]
    return hint


def _description(field: "Field[Any]", hints: Mapping[str, Any]) -> str:
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    values = [part for part in (hints[field.name], *get_args(hints[field.name])) if get_origin(part) is Literal]
    choices = f" One of {', '.join(map(str, get_args(values[0])))}." if values else ""
    text = field.metadata.get(DESCRIPTION, field.name.replace("_", " ").capitalize() + ".")
    suffix = "" if default is MISSING or default is None or default == "" else f" Default: {_default_text(default)}."
    return f"{text}{choices}{suffix}"


def _default_text(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple | list | Mapping) else str(value)
