"""Are the variants of the study whole, is the grid complete, and were latencies measured alone? Never blocking."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import dagster as dg
import polars as pl

from checks.adapters import loss_that_did_not_fall, read_weights, wrong_count, wrong_modules
from checks.grouping import checks_of
from resources.storage import SynthHome
from synth_assets.stages.efficiency.frontier import Frontier
from synth_assets.stages.efficiency.latencies import PERCENTILES
from synth_assets.stages.efficiency.variants import Variant
from synth_assets.storage.manifests import MANIFEST, ManifestError, read_manifest

SHOWN = 5
MAX_OTHER_CORES = 0.25  # other work on a quarter of a core moves a median by a few per cent; on a whole one by half
NUMBERS = ("validation_loss", "test_loss", "validation_perplexity", "test_perplexity", "seconds", "tokens_per_s")


def variant_was_trained(
    context: dg.AssetCheckExecutionContext, lora_variant: dict[str, Variant]
) -> dg.AssetCheckResult:
    """The training did not fail; a variant that this machine cannot run is a warning."""
    chosen = list(_of_this_run(context, lora_variant))
    failed = [f"{one.name}: {one.failure}" for one in chosen if one.failure]
    not_run = [f"{one.name}: {one.not_run}" for one in chosen if one.not_run]
    return _result([*failed, *not_run], dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN)


def variant_is_what_it_says(
    context: dg.AssetCheckExecutionContext, lora_variant: dict[str, Variant], home: SynthHome
) -> dg.AssetCheckResult:
    """Its adapter is whole, of the rank and modules of its cell; as many parameters were trained as these give."""
    return _each(context, lora_variant, lambda one: _wrong_adapter(one, home.root()))


def variant_numbers_are_finite(
    context: dg.AssetCheckExecutionContext, lora_variant: dict[str, Variant]
) -> dg.AssetCheckResult:
    """Losses, perplexities, time and speed are numbers above 0, and the score is within 0..1."""
    return _each(context, lora_variant, _wrong_number)


def variant_loss_fell(
    context: dg.AssetCheckExecutionContext, lora_variant: dict[str, Variant], home: SynthHome
) -> dg.AssetCheckResult:
    """The training loss of the last tenth of the steps is below that of the first tenth."""
    return _each(context, lora_variant, lambda one: _rising_loss(one, home.root()))


def latencies_were_measured_alone(variant_latencies: pl.LazyFrame) -> dg.AssetCheckResult:
    """While answers were timed, other processes took less than MAX_OTHER_CORES of this machine."""
    busy = variant_latencies.filter(~(pl.col("other_cores") <= MAX_OTHER_CORES).fill_null(value=False)).collect()
    told = [f"{cell}: {cores} cores" for cell, cores in busy.select("cell", pl.col("other_cores").round(2)).iter_rows()]
    return _result(told, dg.AssetCheckSeverity.WARN)


def latencies_are_in_order(variant_latencies: pl.LazyFrame) -> dg.AssetCheckResult:
    """Each cell was timed once, on at least one prompt, and no percentile is below a lower one."""
    names = list(PERCENTILES)
    rising = pl.all_horizontal(pl.col(low) <= pl.col(high) for low, high in pairwise(names))
    fine = rising & (pl.col(names[0]) > 0) & (pl.col("prompts") > 0) & pl.col("cell").is_unique()
    wrong = variant_latencies.filter(~fine.fill_null(value=False)).collect()
    return _result(wrong["cell"].to_list(), dg.AssetCheckSeverity.ERROR)


def grid_is_complete(efficiency_frontier: Frontier) -> dg.AssetCheckResult:
    """Each variant that the study was asked for has numbers; names those that have not."""
    told = [f"{name}: {reason}" for name, reason in efficiency_frontier.missing.items()]
    return _result(told, dg.AssetCheckSeverity.WARN)


def intervals_hold_their_means(efficiency_frontier: Frontier) -> dg.AssetCheckResult:
    """Each mean is a number inside its interval, which it has where there are two seeds or more."""
    wrong = [
        f"{one.cell} {one.metric}"
        for one in efficiency_frontier.means
        if not (math.isfinite(one.mean) and _inside(one.low, one.mean, one.high, one.n))
    ]
    return _result(wrong, dg.AssetCheckSeverity.ERROR)


def _of_this_run(context: dg.AssetCheckExecutionContext, variants: Mapping[str, Variant]) -> Iterable[Variant]:
    """The variant of the run's partition; all where it has none, as when a check is run by hand."""
    if context.has_partition_key and context.partition_key in variants:
        return [variants[context.partition_key]]
    return variants.values()


def _each(
    context: dg.AssetCheckExecutionContext, variants: Mapping[str, Variant], wrong: Callable[[Variant], str]
) -> dg.AssetCheckResult:
    """An error where something is wrong with a measured variant."""
    measured = (one for one in _of_this_run(context, variants) if one.measured)
    told = [f"{one.name}: {reason}" for one in measured if (reason := wrong(one))]
    return _result(told, dg.AssetCheckSeverity.ERROR)


def _wrong_adapter(variant: Variant, root: Path) -> str:
    folder = root / variant.path
    try:
        read_manifest(folder)
        weights = read_weights(folder)
    except (ManifestError, OSError, ValueError) as error:
        return str(error)
    trained = int(variant.numbers["trainable_parameters"])
    return wrong_modules(weights, variant.spec["target_modules"]) or wrong_count(weights, variant.spec, trained)


def _wrong_number(variant: Variant) -> str:
    numbers = variant.numbers
    wrong = [f"{name} is {numbers[name]}" for name in NUMBERS if not 0 < numbers[name] < math.inf]
    return ", ".join([*wrong, *([] if 0 <= numbers["score"] <= 1 else [f"score is {numbers['score']}"])])


def _rising_loss(variant: Variant, root: Path) -> str:
    try:
        facts = json.loads((root / variant.path / MANIFEST).read_text("utf-8"))["facts"]
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return loss_that_did_not_fall(facts["outcome"]["curve"])


def _inside(low: float | None, mean: float, high: float | None, seeds: int) -> bool:
    if low is None or high is None:
        return seeds == 1
    slack = 1e-9 * abs(mean)  # equal values: their interval is a point, within rounding
    return low - slack <= mean <= high + slack


def _result(problems: list[str], severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not problems,
        severity=severity,
        metadata={"problems": len(problems), "examples": dg.MetadataValue.json(problems[:SHOWN])},
    )


lora_variant_checks = checks_of(
    "lora_variant",
    watching=(variant_was_trained, variant_is_what_it_says, variant_numbers_are_finite, variant_loss_fell),
)

variant_latencies_checks = checks_of(
    "variant_latencies", watching=(latencies_were_measured_alone, latencies_are_in_order)
)

efficiency_frontier_checks = checks_of("efficiency_frontier", watching=(grid_is_complete, intervals_hold_their_means))
