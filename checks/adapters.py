"""Checks of the stage adapters: files, weights, curves and parameter counts. None blocks: failures are reported."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

import dagster as dg
import numpy as np

from checks.sentences import sentence
from resources.storage import SynthHome
from synth_assets.schemas.records import AdapterRecord
from synth_assets.storage.manifests import MANIFEST, ManifestError, file_sha256, read_manifest
from synth_assets.training.methods import ADAPTERS, METHODS
from synth_assets.training.schedules import AdaptiveRate
from synth_assets.training.specs import OptimizationSpec

CONTINUED = {name: method.continues for method in METHODS.values() if method.continues for name in method.adapters}
"""Adapter -> adapter whose weights its training starts from."""

UNTRAINED_SUFFIX = "lora_B.weight"
"""LoRA's second matrix starts at zero (Hu et al. 2021, arXiv 2106.09685, section 4.1): only training changes it."""

SAFE_SUFFIXES = {".safetensors", ".json", ".md", ".jinja", ".txt", ".model"}
NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

MAX_SHOWN_CHARACTERS = 500

Weights = dict[str, np.ndarray]
Curve = Sequence[Mapping[str, float]]


def read_weights(folder: Path) -> Weights:
    """Return every tensor of the safetensors files under `folder` as floats, without a model library.

    `safetensors.safe_open` cannot read bfloat16 without torch, so the bytes of each tensor are decoded here.

    Raises:
        ValueError: no safetensors file, a file that is not valid, or an unsupported dtype.
    """
    from safetensors import SafetensorError, deserialize

    weights: Weights = {}
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            tensors = deserialize(path.read_bytes())
        except SafetensorError as error:
            raise ValueError(f"{path.name} is no valid safetensors file: {error}") from error
        weights |= {name: _floats(tensor["data"], tensor["dtype"], tensor["shape"], name) for name, tensor in tensors}
    if not weights:
        raise ValueError(f"no weights in {folder}: expected a safetensors file")
    return weights


def _floats(data: bytearray, dtype: str, shape: Sequence[int], name: str) -> np.ndarray:
    if dtype not in NUMPY_DTYPES:
        raise ValueError(f"{name} must be one of {', '.join(NUMPY_DTYPES)}, got {dtype}")
    values = np.frombuffer(data, NUMPY_DTYPES[dtype])
    # bfloat16 is the upper half of a float32
    values = (values.astype("<u4") << 16).view("<f4") if dtype == "BF16" else values
    return values.reshape(shape)


def file_problem(record: AdapterRecord, folder: Path) -> str:
    """Return the problem with an adapter's files, or ""."""
    try:
        read_manifest(folder)
    except (ManifestError, KeyError, ValueError) as error:
        return str(error)
    if file_sha256(folder / MANIFEST) != record.manifest_sha256:
        return f"{MANIFEST} is not the one that was registered"
    unsafe = sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix not in SAFE_SUFFIXES)
    return f"{', '.join(unsafe)} may contain pickles; only safetensors files are accepted" if unsafe else ""


def weight_problem(weights: Weights, start: Weights | None) -> str:
    """Return the problem with an adapter's weights, or ""; `start` are the weights it continued from."""
    if broken := sorted(name for name, values in weights.items() if not np.isfinite(values).all()):
        return f"{broken[0]} is not finite"
    lora = [values for name, values in weights.items() if name.endswith(UNTRAINED_SUFFIX)]
    if not any(values.any() for values in lora or weights.values()):
        return "all weights that training moves from zero are zero"
    if (
        start is not None
        and weights.keys() == start.keys()
        and all(np.array_equal(weights[k], start[k]) for k in start)
    ):
        return "the weights equal those of the adapter that it continued"
    return ""


DESCRIPTIONS = {
    "training_succeeded": "The training ended without a failure.",
    "adapter_is_complete": "The folder matches its manifest and contains no pickles.",
    "adapter_is_non_zero": "The weights are finite, not zero, and differ from those that training started from.",
    "loss_is_finite": "The last loss is finite and at least 0.",
    "curve_is_finite": "Every value of the training curve is finite.",
    "rates_are_as_configured": "Each step used the learning rate that its schedule and the earlier losses give.",
    "target_modules_are_adapted": "Each configured target module has its matrices, and no other module has any.",
    "trained_count_is_the_closed_form": "The number of trained parameters matches rank or virtual tokens and shapes.",
    "a_small_share_was_trained": "Some but not all parameters were trained.",
    "loss_fell": "The loss of the last tenth of the steps is below that of the first tenth.",
    "chosen_became_likelier": "At the end the policy prefers the chosen responses more than the reference does.",
}
RETRAIN = "Delete the folder of the adapter under SYNTH_HOME/adapters and run again: it is trained anew"
UNSTABLE = "Lower the learning rate of this adapter, or train longer: synth run --set ADAPTER.learning_rate=..."
REMEDIES = {
    "training_succeeded": "Correct the cause that the message names and run again; finished work is kept",
    **dict.fromkeys(("loss_is_finite", "curve_is_finite", "loss_fell", "chosen_became_likelier"), UNSTABLE),
    "target_modules_are_adapted": "Correct the modules: synth run --set ADAPTER.target_modules=[...]",
}
WARNINGS = {"loss_fell", "chosen_became_likelier"}
LORA_ADAPTERS = tuple(name for method in METHODS.values() if method.is_lora for name in method.adapters)
ONLY_FOR = {
    "target_modules_are_adapted": LORA_ADAPTERS,
    "loss_fell": tuple(name for name in ADAPTERS if name not in CONTINUED),
    "chosen_became_likelier": tuple(method.adapter for method in METHODS.values() if method.curves == "preference"),
}
"""The loss of a continued adapter hardly falls: it is mostly batch noise."""


DISK_CHECKS = (
    "adapter_is_complete",
    "adapter_is_non_zero",
    "curve_is_finite",
    "rates_are_as_configured",
    "target_modules_are_adapted",
    "trained_count_is_the_closed_form",
    "loss_fell",
    "chosen_became_likelier",
)


def problems(record: AdapterRecord, root: Path, continued: AdapterRecord | None = None) -> dict[str, str]:
    """Return the problem of each check, empty if it passes.

    Args:
        record: record of the adapter.
        root: SYNTH_HOME.
        continued: record of the adapter whose weights it started from.
    """
    trained, total = record.trainable_parameters, record.total_parameters
    finite = math.isfinite(record.final_loss) and record.final_loss >= 0
    return {
        "training_succeeded": record.failure,
        "loss_is_finite": "" if finite else f"the last loss is {record.final_loss}",
        "a_small_share_was_trained": "" if 0 < trained < total else f"{trained} of {total} parameters were trained",
        **_disk_problems(record, root, continued),
    }


def _disk_problems(record: AdapterRecord, root: Path, continued: AdapterRecord | None) -> dict[str, str]:
    try:
        folder = folder_of(record, root)
        weights = read_weights(folder)
        start = read_weights(folder_of(continued, root)) if continued else None
        outcome = json.loads((folder / MANIFEST).read_text("utf-8"))["facts"]["outcome"]
    except (OSError, KeyError, ValueError) as error:
        return dict.fromkeys(DISK_CHECKS, f"{type(error).__name__}: {error}")
    curve, shape = outcome["curve"], (continued or record).spec
    return {
        "adapter_is_complete": file_problem(record, folder),
        "adapter_is_non_zero": weight_problem(weights, start),
        "curve_is_finite": curve_problem(curve),
        "rates_are_as_configured": rate_problem(record.spec, outcome),
        "target_modules_are_adapted": module_problem(weights, shape.get("target_modules", ())),
        "trained_count_is_the_closed_form": count_problem(weights, shape, record.trainable_parameters),
        "loss_fell": loss_problem(curve),
        "chosen_became_likelier": margin_problem(curve),
    }


def curve_problem(curve: Curve) -> str:
    """Return the first value of the curve that is not finite, except gradient norms, which may overflow in float16."""
    for point in curve:
        for name, value in point.items():
            if name != "grad_norm" and not math.isfinite(value):
                return f"{name} is {value} at step {point['step']:.0f}"
    return ""


def rate_problem(settings: Mapping[str, Any], outcome: Mapping[str, Any]) -> str:
    """Return the first step whose learning rate differs from its schedule, adapted to the earlier losses."""
    spec = OptimizationSpec(**{field.name: settings[field.name] for field in fields(OptimizationSpec)})
    plan = AdaptiveRate(spec, outcome["phases"][-1]["last_step"])
    steps = 0
    for point in outcome["curve"]:
        if "loss" not in point:
            continue
        expected = spec.learning_rate * plan.factor(steps)
        if not math.isclose(point["learning_rate"], expected, rel_tol=1e-6, abs_tol=1e-15):
            return f"step {point['step']:.0f}: expected the learning rate {expected:g}, got {point['learning_rate']:g}"
        plan.observe(point["loss"])
        steps += math.isfinite(point.get("grad_norm", 0.0))  # steps that overflow in float16 are skipped
    return "" if steps else "no step was logged"


def module_problem(weights: Weights, expected: Sequence[str]) -> str:
    """Return target modules without matrices, or modules with matrices that are no target."""
    actual = {match[1] for name in weights if (match := re.search(r"([^.]+)\.lora_[AB]\.", name))}
    if missing := sorted(set(expected) - actual):
        return f"{', '.join(missing)} has no matrices"
    return f"{', '.join(extra)} is no target" if (extra := sorted(actual - set(expected))) else ""


def count_problem(weights: Weights, settings: Mapping[str, Any], trained: int) -> str:
    """Return a problem unless rank x (inputs + outputs) of each module, or virtual tokens x width, were trained."""
    rank = settings["rank"] if "rank" in settings else settings["virtual_tokens"]
    expected = sum(
        rank * (sum(values.shape) - rank) for values in weights.values()
    )  # one side of each matrix is the rank
    return "" if expected == trained else f"expected {expected} trained parameters from the shapes, got {trained}"


def folder_of(record: AdapterRecord, root: Path) -> Path:
    """Return the adapter's folder; raise ValueError if its record has no folder below `root`."""
    folder = (root / record.path).resolve()
    if not record.path or root.resolve() not in folder.parents:
        raise ValueError(f"{record.name} has no folder under {root}: {record.path!r}")
    return folder


def loss_problem(curve: Curve) -> str:
    """Return "" if the mean loss of the last tenth of the steps is below that of the first, else both values."""
    losses = [point["loss"] for point in curve if "loss" in point]
    if len(losses) < 2:
        return f"{len(losses)} losses were logged"
    tenth = max(1, len(losses) // 10)
    first, last = fmean(losses[:tenth]), fmean(losses[-tenth:])
    return "" if last < first else f"the loss went from {first:.4f} to {last:.4f}"


def margin_problem(curve: Curve) -> str:
    """Return "" if the mean implicit reward margin of the last tenth of the steps is above 0, its initial value."""
    margins = [point["reward_margin"] for point in curve if "reward_margin" in point]
    if not margins:
        return "no reward margin was logged"
    last = fmean(margins[-max(1, len(margins) // 10) :])
    return "" if last > 0 else f"the reward margin ended at {last:.4f}"


def adapter_checks(asset: str) -> dg.AssetChecksDefinition:
    """Return the checks of one adapter as one step."""
    names = [name for name in DESCRIPTIONS if asset in ONLY_FOR.get(name, ADAPTERS)]
    start = CONTINUED.get(asset)
    specs = [
        dg.AssetCheckSpec(name, asset=asset, description=DESCRIPTIONS[name], additional_deps=[start] if start else None)
        for name in names
    ]
    decorate = dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=specs,
        can_subset=True,
        ins={"adapter": dg.AssetIn(asset)} | ({"continued": dg.AssetIn(start)} if start else {}),
    )

    def from_scratch(
        context: dg.AssetCheckExecutionContext, home: SynthHome, adapter: AdapterRecord
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results(context, asset, problems(adapter, home.root()), measurements(adapter))

    def from_another(
        context: dg.AssetCheckExecutionContext, home: SynthHome, adapter: AdapterRecord, continued: AdapterRecord
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results(context, asset, problems(adapter, home.root(), continued), measurements(adapter))

    return decorate(from_another if start else from_scratch)


def measurements(record: AdapterRecord) -> dict[str, str]:
    """Return the measured value of the checks that read one from the record."""
    return {
        "training_succeeded": f"trained in {record.seconds:,.0f} s",
        "loss_is_finite": f"last loss {record.final_loss:.4g}",
        "trained_count_is_the_closed_form": f"{record.trainable_parameters:,} trained parameters",
        "a_small_share_was_trained": f"{record.trainable_parameters:,} of {record.total_parameters:,} parameters",
    }


def _sentence(asset: str, name: str, problem: str, measured: Mapping[str, str]) -> str:
    """Return what a check found and expected; with a problem, also the remedy."""
    if problem:
        remedy = REMEDIES.get(name, RETRAIN).replace("ADAPTER", asset)
        return sentence(problem, f"expected: {DESCRIPTIONS[name].rstrip('.')}", remedy, passed=False)
    value = f" Measured: {measured[name]}." if name in measured else ""
    return f"{DESCRIPTIONS[name]}{value}"


def _results(
    context: dg.AssetCheckExecutionContext, asset: str, problems_of: Mapping[str, str], measured: Mapping[str, str]
) -> Iterator[dg.AssetCheckResult]:
    for name in sorted(key.name for key in context.selected_asset_check_keys):
        yield dg.AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=not problems_of[name],
            severity=dg.AssetCheckSeverity.WARN if name in WARNINGS else dg.AssetCheckSeverity.ERROR,
            description=_sentence(asset, name, problems_of[name][:MAX_SHOWN_CHARACTERS], measured),
        )


ADAPTER_CHECKS = [adapter_checks(name) for name in ADAPTERS]
