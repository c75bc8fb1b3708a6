"""Is each adapter whole on disk, trained, and not broken? Never blocking: a failed one is a row of the scoreboard."""

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

from resources.storage import SynthHome
from synth_assets.schemas.records import AdapterRecord
from synth_assets.storage.manifests import MANIFEST, ManifestError, file_sha256, read_manifest
from synth_assets.training.methods import ADAPTERS, METHODS
from synth_assets.training.schedules import AdaptiveRate
from synth_assets.training.specs import OptimizationSpec

CONTINUED = {name: method.continues for method in METHODS.values() if method.continues for name in method.adapters}
"""Adapter -> the one whose weights its training starts from."""

UNTRAINED_SUFFIX = "lora_B.weight"
"""LoRA's second matrix starts at zero (Hu et al. 2021, arXiv 2106.09685, section 4.1): non-zero only if trained."""

SAFE = {".safetensors", ".json", ".md", ".jinja", ".txt", ".model"}
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

SHOWN_CHARACTERS = 500

Weights = dict[str, np.ndarray]
Curve = Sequence[Mapping[str, float]]


def read_weights(folder: Path) -> Weights:
    """Every tensor of the safetensors files under `folder`, as floats, without a model library.

    Raises:
        ValueError: no such file, or a dtype that no adapter has.
    """
    weights: Weights = {}
    for path in sorted(folder.rglob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(data[8:start])
        for name, entry in header.items():
            if name != "__metadata__":
                low, high = entry["data_offsets"]
                weights[name] = _floats(data[start + low : start + high], entry["dtype"], entry["shape"], name)
    if not weights:
        raise ValueError(f"no weights in {folder}: wanted a safetensors file")
    return weights


def _floats(data: bytes, dtype: str, shape: Sequence[int], name: str) -> np.ndarray:
    if dtype not in NUMPY:
        raise ValueError(f"{name} is {dtype}; an adapter has {', '.join(NUMPY)}")
    values = np.frombuffer(data, NUMPY[dtype])
    # bfloat16 is the upper half of a float32
    values = (values.astype("<u4") << 16).view("<f4") if dtype == "BF16" else values
    return values.reshape(shape)


def wrong_files(record: AdapterRecord, folder: Path) -> str:
    """What is wrong with the files of an adapter, or nothing."""
    try:
        read_manifest(folder)
    except (ManifestError, KeyError, ValueError) as error:
        return str(error)
    if file_sha256(folder / MANIFEST) != record.manifest_sha256:
        return f"{MANIFEST} is not the one that was registered"
    unsafe = sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix not in SAFE)
    return f"{', '.join(unsafe)} may hold pickles; only safetensors are taken" if unsafe else ""


def wrong_weights(weights: Weights, start: Weights | None) -> str:
    """What is wrong with the weights of an adapter, or nothing; `start` is the adapter that it continued."""
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
        return "the weights are those of the adapter that it continued"
    return ""


DESCRIPTIONS = {
    "training_succeeded": "The training ended without a failure.",
    "adapter_is_complete": "The folder holds exactly what its manifest says, and no pickles.",
    "adapter_is_non_zero": "The weights are finite, not zero, and not those that training started from.",
    "loss_is_finite": "The last loss is a number, and not below 0.",
    "curve_is_finite": "Every number of the training's curve is finite.",
    "rates_are_as_configured": "Each step took the learning rate that its schedule and the losses before it give.",
    "target_modules_are_adapted": "Each target module of the configuration has its matrices, and no other module.",
    "trained_count_is_the_closed_form": "As many parameters were trained as rank, or virtual tokens, and shapes give.",
    "a_small_share_was_trained": "Some parameters were trained, and fewer than all.",
    "loss_fell": "The loss of the last tenth of the steps is below that of the first tenth.",
    "chosen_became_likelier": "At the end the policy prefers the chosen responses more than the reference does.",
}
WARNINGS = {"loss_fell", "chosen_became_likelier"}
LORA = tuple(name for method in METHODS.values() if method.is_lora for name in method.adapters)
ONLY_FOR = {
    "target_modules_are_adapted": LORA,
    "loss_fell": tuple(name for name in ADAPTERS if name not in CONTINUED),
    "chosen_became_likelier": tuple(method.adapter for method in METHODS.values() if method.curves == "preference"),
}
"""A continued adapter starts near its end: its loss is mostly noise of the batches."""


ON_DISK = (
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
    """What is wrong with an adapter: a reason for each check, empty where it passes.

    Args:
        record: what the adapter's asset returned.
        root: SYNTH_HOME.
        continued: the adapter whose weights it started from.
    """
    trained, total = record.trainable_parameters, record.total_parameters
    finite = math.isfinite(record.final_loss) and record.final_loss >= 0
    return {
        "training_succeeded": record.failure,
        "loss_is_finite": "" if finite else f"the last loss is {record.final_loss}",
        "a_small_share_was_trained": "" if 0 < trained < total else f"{trained} of {total} parameters were trained",
        **_problems_on_disk(record, root, continued),
    }


def _problems_on_disk(record: AdapterRecord, root: Path, continued: AdapterRecord | None) -> dict[str, str]:
    try:
        folder = folder_of(record, root)
        weights = read_weights(folder)
        start = read_weights(folder_of(continued, root)) if continued else None
        outcome = json.loads((folder / MANIFEST).read_text("utf-8"))["facts"]["outcome"]
    except (OSError, KeyError, ValueError) as error:
        return dict.fromkeys(ON_DISK, f"{type(error).__name__}: {error}")
    curve, shape = outcome["curve"], (continued or record).spec
    return {
        "adapter_is_complete": wrong_files(record, folder),
        "adapter_is_non_zero": wrong_weights(weights, start),
        "curve_is_finite": not_finite(curve),
        "rates_are_as_configured": wrong_rates(record.spec, outcome),
        "target_modules_are_adapted": wrong_modules(weights, shape.get("target_modules", ())),
        "trained_count_is_the_closed_form": wrong_count(weights, shape, record.trainable_parameters),
        "loss_fell": loss_that_did_not_fall(curve),
        "chosen_became_likelier": margin_that_did_not_grow(curve),
    }


def not_finite(curve: Curve) -> str:
    """The first number of the curve that is not finite; float16 alone may skip steps whose gradient overflows."""
    for point in curve:
        for name, value in point.items():
            if name != "grad_norm" and not math.isfinite(value):
                return f"{name} is {value} at step {point['step']:.0f}"
    return ""


def wrong_rates(settings: Mapping[str, Any], outcome: Mapping[str, Any]) -> str:
    """The first step whose rate is not the one of its schedule, lowered as the losses before it demand."""
    spec = OptimizationSpec(**{field.name: settings[field.name] for field in fields(OptimizationSpec)})
    plan = AdaptiveRate(spec, outcome["phases"][-1]["last_step"])
    done = 0
    for point in outcome["curve"]:
        if "loss" not in point:
            continue
        wanted = spec.learning_rate * plan.factor(done)
        if not math.isclose(point["learning_rate"], wanted, rel_tol=1e-6, abs_tol=1e-15):
            return f"step {point['step']:.0f} took the rate {point['learning_rate']:g} where {wanted:g} is configured"
        plan.observe(point["loss"])
        done += math.isfinite(point.get("grad_norm", 0.0))  # a step that overflowed in float16 was not taken
    return "" if done else "no step was logged"


def wrong_modules(weights: Weights, wanted: Sequence[str]) -> str:
    """Target modules without matrices, and modules that have some and are no target."""
    found = {match[1] for name in weights if (match := re.search(r"([^.]+)\.lora_[AB]\.", name))}
    if missing := sorted(set(wanted) - found):
        return f"{', '.join(missing)} has no matrices"
    return f"{', '.join(extra)} is no target" if (extra := sorted(found - set(wanted))) else ""


def wrong_count(weights: Weights, settings: Mapping[str, Any], trained: int) -> str:
    """Where rank x (inputs + outputs) of each module, or virtual tokens x width, is not what was trained."""
    rank = settings["rank"] if "rank" in settings else settings["virtual_tokens"]
    wanted = sum(
        rank * (sum(values.shape) - rank) for values in weights.values()
    )  # one side of each matrix is the rank
    return "" if wanted == trained else f"{trained} parameters were trained where the shapes give {wanted}"


def folder_of(record: AdapterRecord, root: Path) -> Path:
    """Where the adapter lies; ValueError where its record names no folder below `root`."""
    folder = (root / record.path).resolve()
    if not record.path or root.resolve() not in folder.parents:
        raise ValueError(f"{record.name} has no folder under {root}: {record.path!r}")
    return folder


def loss_that_did_not_fall(curve: Curve) -> str:
    """Nothing where the mean loss of the last tenth of the steps is below that of the first; else both."""
    losses = [point["loss"] for point in curve if "loss" in point]
    if len(losses) < 2:
        return f"{len(losses)} losses were logged"
    tenth = max(1, len(losses) // 10)
    first, last = fmean(losses[:tenth]), fmean(losses[-tenth:])
    return "" if last < first else f"the loss went from {first:.4f} to {last:.4f}"


def margin_that_did_not_grow(curve: Curve) -> str:
    """Nothing where the mean implicit reward margin of the last tenth of the steps is above 0, where it starts."""
    margins = [point["reward_margin"] for point in curve if "reward_margin" in point]
    if not margins:
        return "no reward margin was logged"
    last = fmean(margins[-max(1, len(margins) // 10) :])
    return "" if last > 0 else f"the reward margin ended at {last:.4f}"


def adapter_checks(asset: str) -> dg.AssetChecksDefinition:
    """The checks of one adapter, in one step."""
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
        yield from _results(context, asset, problems(adapter, home.root()))

    def from_another(
        context: dg.AssetCheckExecutionContext, home: SynthHome, adapter: AdapterRecord, continued: AdapterRecord
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results(context, asset, problems(adapter, home.root(), continued))

    return decorate(from_another if start else from_scratch)


def _results(
    context: dg.AssetCheckExecutionContext, asset: str, found: Mapping[str, str]
) -> Iterator[dg.AssetCheckResult]:
    for name in sorted(key.name for key in context.selected_asset_check_keys):
        yield dg.AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=not found[name],
            severity=dg.AssetCheckSeverity.WARN if name in WARNINGS else dg.AssetCheckSeverity.ERROR,
            description=found[name][:SHOWN_CHARACTERS] or None,
        )


OF_ADAPTERS = [adapter_checks(name) for name in ADAPTERS]
