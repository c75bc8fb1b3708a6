"""Checks of the stage efficiency: variants, latencies and the completeness of the grid. None of them blocks."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import dagster as dg
import polars as pl

from checks.adapters import count_problem, loss_problem, module_problem, read_weights
from checks.grouping import checks_of
from checks.sentences import none_allowed
from resources.storage import SynthHome
from synth_assets.stages.efficiency.frontier import Frontier
from synth_assets.stages.efficiency.latencies import PERCENTILES
from synth_assets.stages.efficiency.variants import Variant
from synth_assets.storage.manifests import MANIFEST, ManifestError, read_manifest

MAX_SHOWN = 5
MAX_OTHER_CORES = 0.25  # other load of a quarter of a core changes a median by a few per cent, of a whole one by half
NUMBERS = ("validation_loss", "test_loss", "validation_perplexity", "test_perplexity", "seconds", "tokens_per_s")


def variant_was_trained(
    context: dg.AssetCheckExecutionContext, lora_variant: dict[str, Variant]
) -> dg.AssetCheckResult:
    """Check that the training did not fail; a variant that this machine cannot run is a warning."""
    variants = list(_of_this_run(context, lora_variant))
    failed = [f"{variant.name}: {variant.failure}" for variant in variants if variant.failure]
    not_run = [f"{variant.name}: {variant.not_run}" for variant in variants if variant.not_run]
    return _result([*failed, *not_run], dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN)


def variant_is_what_it_says(
    context: dg.AssetCheckExecutionContext, lora_variant: dict[str, Variant], home: SynthHome
) -> dg.AssetCheckResult:
    """Check that the adapter is complete and has the rank, modules and parameter count of its cell."""
    return _each(context, lora_variant, lambda variant: _wrong_adapter(variant, home.root()))


def variant_numbers_are_finite(
    context: dg.AssetCheckExecutionContext, lora_variant: dict[str, Variant]
) -> dg.AssetCheckResult:
    """Check that losses, perplexities, time and speed are finite and above 0, and that the score is within 0..1."""
    return _each(context, lora_variant, _wrong_number)


def variant_loss_fell(
    context: dg.AssetCheckExecutionContext, lora_variant: dict[str, Variant], home: SynthHome
) -> dg.AssetCheckResult:
    """Check that the training loss of the last tenth of the steps is below that of the first tenth."""
    return _each(context, lora_variant, lambda variant: _rising_loss(variant, home.root()))


def latencies_were_measured_alone(variant_latencies: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that other processes used at most MAX_OTHER_CORES of this machine during the measurement."""
    busy = variant_latencies.filter(~(pl.col("other_cores") <= MAX_OTHER_CORES).fill_null(value=False)).collect()
    cells = [
        f"{cell}: {cores} cores" for cell, cores in busy.select("cell", pl.col("other_cores").round(2)).iter_rows()
    ]
    return _result(cells, dg.AssetCheckSeverity.WARN)


def latencies_are_in_order(variant_latencies: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that each cell was timed once, on at least one prompt, and that percentiles are in order."""
    names = list(PERCENTILES)
    rising = pl.all_horizontal(pl.col(low) <= pl.col(high) for low, high in pairwise(names))
    valid = rising & (pl.col(names[0]) > 0) & (pl.col("prompts") > 0) & pl.col("cell").is_unique()
    wrong = variant_latencies.filter(~valid.fill_null(value=False)).collect()
    return _result(wrong["cell"].to_list(), dg.AssetCheckSeverity.ERROR)


def grid_is_complete(efficiency_frontier: Frontier) -> dg.AssetCheckResult:
    """Check that each variant of the study has results; list those without."""
    cells = [f"{name}: {reason}" for name, reason in efficiency_frontier.missing.items()]
    return _result(cells, dg.AssetCheckSeverity.WARN)


def intervals_hold_their_means(efficiency_frontier: Frontier) -> dg.AssetCheckResult:
    """Check that each mean is inside its interval, which it has from two seeds on."""
    wrong = [
        f"{mean.cell} {mean.metric}"
        for mean in efficiency_frontier.means
        if not (math.isfinite(mean.mean) and _inside(mean.low, mean.mean, mean.high, mean.n))
    ]
    return _result(wrong, dg.AssetCheckSeverity.ERROR)


def _of_this_run(context: dg.AssetCheckExecutionContext, variants: Mapping[str, Variant]) -> Iterable[Variant]:
    """Return the variant of the run's partition, or all if the run has none, as when a check is run by hand."""
    if context.has_partition_key and context.partition_key in variants:
        return [variants[context.partition_key]]
    return variants.values()


def _each(
    context: dg.AssetCheckExecutionContext, variants: Mapping[str, Variant], wrong: Callable[[Variant], str]
) -> dg.AssetCheckResult:
    """Return an error for each problem of a measured variant."""
    measured = (variant for variant in _of_this_run(context, variants) if variant.measured)
    problems = [f"{variant.name}: {reason}" for variant in measured if (reason := wrong(variant))]
    return _result(problems, dg.AssetCheckSeverity.ERROR)


def _wrong_adapter(variant: Variant, root: Path) -> str:
    folder = root / variant.path
    try:
        read_manifest(folder)
        weights = read_weights(folder)
    except (ManifestError, OSError, ValueError) as error:
        return str(error)
    trained = int(variant.numbers["trainable_parameters"])
    return module_problem(weights, variant.spec["target_modules"]) or count_problem(weights, variant.spec, trained)


def _wrong_number(variant: Variant) -> str:
    numbers = variant.numbers
    wrong = [f"{name} is {numbers[name]}" for name in NUMBERS if not 0 < numbers[name] < math.inf]
    return ", ".join([*wrong, *([] if 0 <= numbers["score"] <= 1 else [f"score is {numbers['score']}"])])


def _rising_loss(variant: Variant, root: Path) -> str:
    try:
        facts = json.loads((root / variant.path / MANIFEST).read_text("utf-8"))["facts"]
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return loss_problem(facts["outcome"]["curve"])


def _inside(low: float | None, mean: float, high: float | None, seeds: int) -> bool:
    if low is None or high is None:
        return seeds == 1
    slack = 1e-9 * abs(mean)  # equal values: their interval is a point, within rounding
    return low - slack <= mean <= high + slack


def _result(problems: list[str], severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not problems,
        severity=severity,
        description=none_allowed(problems, "problems", "Run synth study again, alone on the machine"),
        metadata={"problems": len(problems), "examples": dg.MetadataValue.json(problems[:MAX_SHOWN])},
    )


lora_variant_checks = checks_of(
    "lora_variant",
    watching=(variant_was_trained, variant_is_what_it_says, variant_numbers_are_finite, variant_loss_fell),
)

variant_latencies_checks = checks_of(
    "variant_latencies", watching=(latencies_were_measured_alone, latencies_are_in_order)
)

efficiency_frontier_checks = checks_of("efficiency_frontier", watching=(grid_is_complete, intervals_hold_their_means))
