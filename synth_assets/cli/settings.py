"""Parse `--set asset.field=value`: read the value as YAML and validate it against the config of the job's assets."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from resources.dagster_private import NodeHandle
from synth_assets.orchestration.failures import one_line
from synth_assets.orchestration.yaml_numbers import load_value
from synth_assets.text.redaction import holds_secret

TYPES = {"Int": "a whole number", "Float": "a number", "Bool": "true or false", "String": "text"}
CONFIG_PATH = re.compile(r"\broot:ops:(?P<op>\w+)(?::config)?(?P<rest>[^ .]*)")
MAX_SHOWN = 12  # names in a message
FORMER_OPS = {"judged_instructions": "filtered_instructions", "judged_preferences": "filtered_preferences"}
"""Names of ops until version 0.1; `--set` still accepts them."""

Ops = dict[str, dict[str, dict[str, Any]]]
"""Dagster's section `ops`: the config of each op."""


def read_settings(settings: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the text of each setting, by asset and field.

    Raises:
        ValueError: a setting is not asset.field=value, has no value, or contains a secret.
    """
    texts: dict[str, dict[str, str]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        asset, dot, field = name.partition(".")
        if not (equals and dot and asset and field):
            raise ValueError(f"--set expects asset.field=value, got {one_line(setting)!r}")
        if holds_secret(setting):
            raise ValueError(
                f"--set {one_line(name)}: the value looks like a secret (a key, or an address with credentials). "
                "Settings of runs are stored and shown in the UI; pass secrets in environment variables"
            )
        if not value.strip():
            raise ValueError(f"--set {one_line(name)} has no value; use `null` for the default")
        texts.setdefault(asset, {})[field] = value
    return texts


def ops_for(job: dg.JobDefinition, settings: Sequence[str]) -> Ops:
    """Return the settings as the section `ops` of the run config. An asset name selects the op of the asset.

    Raises:
        ValueError: an asset or field does not exist (the message suggests the nearest name), or a value has the wrong
            type.
    """
    settable = fields_of(job)
    op_of = _op_of_asset(job) | {op: op for op in settable}
    op_of |= {former: op for former, op in FORMER_OPS.items() if op in settable}
    ops: Ops = {}
    for asset, values in read_settings(settings).items():
        if asset not in op_of:
            configurable = [name for name, op in op_of.items() if op in settable]
            raise ValueError(f"--set {one_line(asset)}: no such asset{_nearest(asset, configurable)}")
        fields = settable.get(op_of[asset], {})
        config = ops.setdefault(op_of[asset], {}).setdefault("config", {})
        config |= {field: _setting(asset, fields, field, text) for field, text in values.items()}
    _validate(job, ops)
    return ops


def _setting(asset: str, fields: Mapping[str, str], field: str, text: str) -> Any:  # noqa: ANN401 - any type
    """Return the value of one setting. A number stays text if the field takes text."""
    name = f"{asset}.{one_line(field)}"
    if field not in fields:
        available = f"{asset} has {_listed(fields)}" if fields else f"{asset} has no settings"
        raise ValueError(f"--set {name}: no such field{_nearest(field, fields)} ({available})")
    value = _value(name, text)
    return text.strip() if fields[field] == "String" and isinstance(value, int | float) else value


def fields_of(job: dg.JobDefinition) -> dict[str, dict[str, str]]:
    """Return the type of each config field, by op, for the ops of a job that have config."""
    types: dict[str, dict[str, str]] = {}
    for node in job.graph.nodes:
        config = getattr(node.definition, "config_field", None)
        fields: Mapping[str, Any] = getattr(config.config_type, "fields", {}) if config else {}
        if fields:
            types[node.name] = {name: _type_name(field.config_type) for name, field in fields.items()}
    return types


def _value(name: str, text: str) -> Any:  # noqa: ANN401 - any YAML value
    try:
        return load_value(text)
    except ValueError as error:
        raise ValueError(f"--set {one_line(name)}: {one_line(str(error))}") from error


def _type_name(kind: Any) -> str:  # noqa: ANN401 - Dagster's config types have no common public class
    """Return the name of the scalar type of a field, optional or not; empty for lists and maps."""
    kind = getattr(kind, "inner_type", kind) if type(kind).__name__ == "Noneable" else kind
    return getattr(getattr(kind, "scalar_type", kind), "given_name", None) or ""


def _op_of_asset(job: dg.JobDefinition) -> dict[str, str]:
    layer = job.asset_layer
    return {
        key.to_user_string(): node.name
        for node in job.graph.nodes
        for key in layer.get_selected_entity_keys_for_node(NodeHandle(node.name, None))
        if isinstance(key, dg.AssetKey)
    }


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _listed(names: Iterable[str]) -> str:
    ordered = list(names)
    rest = f", and {len(ordered) - MAX_SHOWN} more" if len(ordered) > MAX_SHOWN else ""
    return ", ".join(ordered[:MAX_SHOWN]) + rest


def _validate(job: dg.JobDefinition, ops: Ops) -> None:
    try:
        dg.validate_run_config(job, {"ops": ops})
    except dg.DagsterInvalidConfigError as error:
        raise ValueError("; ".join(map(_explained, error.errors))) from error


def _explained(error: Any) -> str:  # noqa: ANN401 - Dagster exports no type for it
    """Return Dagster's message with the name of the setting and a readable type."""
    path = CONFIG_PATH.search(error.message)
    name = f"--set {path['op']}{path['rest'].replace(':', '.', 1)}" if path else "--set"
    kind = getattr(getattr(error.error_data, "config_type_snap", None), "given_name", None)
    if kind in TYPES:
        return f"{name} must be {TYPES[kind]}, got {one_line(str(error.error_data.value_rep))}"
    return f"{name}: {one_line(error.message.replace(path[0], '') if path else error.message)}"
