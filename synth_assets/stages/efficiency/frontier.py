"""Compare the variants of a study: means over seeds with intervals, paired differences, Pareto frontiers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from synth_assets.stages.efficiency.grid import MODULES, QUANTISATIONS, RANKS, REFERENCE, Cell, cell_of
from synth_assets.stages.efficiency.variants import Variant
from synth_assets.stats.intervals import t_interval

QUALITIES: Mapping[str, bool] = {"test_loss": False, "score": True}
"""Quality metric -> whether a larger value is better."""
COSTS = ("trainable_parameters", "peak_memory_bytes", "seconds")
METRICS = (
    *("test_loss", "test_perplexity", "validation_loss", "validation_perplexity", "score"),
    *("trainable_parameters", "adapter_bytes", "peak_memory_bytes", "tokens_per_s", "seconds"),
)
COMPARED_METRICS = ("test_loss", "score", "seconds")
NOT_MATERIALISED = "never materialised"
OTHER_BASIS = "computed from other data, settings or code than this study: materialise it again"


@dataclass(frozen=True)
class SeedMean:
    """A cell's mean of one metric over `n` seeds, with Student's 95 % interval (None for one seed)."""

    cell: str
    metric: str
    n: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Second minus first cell, paired by seed, with Student's 95 % interval (None for one common seed)."""

    factor: str  # factor in which the cells differ
    first: str
    second: str
    metric: str
    n: int
    difference: float
    low: float | None
    high: float | None

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Frontier:
    """Results of a study.

    Args:
        wanted: requested variants.
        missing: requested variants without results, with the reason.
        cells: measured cells, in the order of the grid.
        means: METRICS of each cell.
        differences: differences from the reference, and from the best cell by each quality.
        pareto: "quality against cost" -> its frontier, by means and rising cost.
        rows: number of rows by split, and "test_tokens".
        suite: suite of the score.
        metric: metric of the score.
        items: number of validation items of the score.
        memory_kind: "measured" or "derived".
        runs: MLflow run by variant.
        findings: findings as sentences.
    """

    wanted: list[str]
    missing: Mapping[str, str]
    cells: list[str]
    means: list[SeedMean]
    differences: list[Difference]
    pareto: Mapping[str, list[str]]
    rows: Mapping[str, int]
    suite: str
    metric: str
    items: int
    memory_kind: str
    runs: Mapping[str, str]
    findings: list[str] = field(default_factory=list)


def compare(variants: Mapping[str, Variant], wanted: Sequence[str], basis: str) -> Frontier:
    """Return the study without its findings.

    Args:
        variants: all materialised variants.
        wanted: names of the requested variants.
        basis: fingerprint of the study's basis; variants of another basis are listed as missing.
    """
    missing = {name: reason for name in wanted if (reason := _unusable(variants.get(name), basis))}
    measured = [variants[name] for name in wanted if name not in missing]
    by_cell: dict[str, dict[int, Variant]] = defaultdict(dict)
    for variant in measured:
        by_cell[variant.cell][variant.seed] = variant
    means = [_mean(cell, metric, list(by_seed.values())) for cell, by_seed in by_cell.items() for metric in METRICS]
    first = measured[0] if measured else None
    return Frontier(
        wanted=list(wanted),
        missing=missing,
        cells=list(by_cell),
        means=means,
        differences=list(_differences(by_cell, means)),
        pareto={
            f"{quality} against {cost}": pareto(means, quality, cost)
            for quality in QUALITIES
            for cost in COSTS
            if by_cell
        },
        rows={**first.rows, "test_tokens": int(first.numbers["test_tokens"])} if first else {},
        suite=first.suite if first else "",
        metric=first.metric if first else "",
        items=int(first.numbers["items"]) if first else 0,
        memory_kind=" or ".join(sorted({variant.peak_memory_kind for variant in measured})),
        runs={variant.name: variant.mlflow_run_id for variant in measured},
    )


def pareto(means: Sequence[SeedMean], quality: str, cost: str) -> list[str]:
    """Return the Pareto frontier of the means of a quality and a cost, by rising cost."""
    sign = -1 if QUALITIES[quality] else 1
    qualities, costs = mean_of(means, quality), mean_of(means, cost)
    ranked = sorted(costs, key=lambda cell: (costs[cell], sign * qualities[cell]))
    frontier: list[str] = []
    for cell in ranked:
        if not frontier or sign * qualities[cell] < sign * qualities[frontier[-1]]:
            frontier.append(cell)
    return frontier


def mean_of(means: Sequence[SeedMean], metric: str) -> dict[str, float]:
    """Return the mean of one metric by cell."""
    return {mean.cell: mean.mean for mean in means if mean.metric == metric}


def best_cell(means: Sequence[SeedMean], quality: str) -> str:
    """Return the cell with the best mean."""
    qualities = mean_of(means, quality)
    return (max if QUALITIES[quality] else min)(qualities, key=lambda cell: qualities[cell])


def levels(factor: str, cells: Sequence[str]) -> dict[str, str]:
    """Return the cells of a one-factor sweep around the reference by level, in the grid's order.

    Args:
        factor: "rank", "modules" or "quantisation".
        cells: existing cells; levels without a cell are left out.
    """
    cells_by_factor: dict[str, list[Cell]] = {
        "rank": [cell_of(rank, REFERENCE.modules, REFERENCE.quantisation) for rank in RANKS],
        "modules": [cell_of(REFERENCE.rank, modules, REFERENCE.quantisation) for modules in MODULES],
        "quantisation": [cell_of(REFERENCE.rank, REFERENCE.modules, name) for name in QUANTISATIONS],
    }
    return {
        str(getattr(cell, factor)): cell.name for cell in dict.fromkeys(cells_by_factor[factor]) if cell.name in cells
    }


def _unusable(variant: Variant | None, basis: str) -> str:
    if variant is None:
        return NOT_MATERIALISED
    if variant.not_run:
        return f"not run: {variant.not_run}"
    if variant.basis != basis:
        return OTHER_BASIS
    return f"failed: {variant.failure}" if variant.failure else ""


def _mean(cell: str, metric: str, variants: Sequence[Variant]) -> SeedMean:
    values = [variant.numbers[metric] for variant in variants]
    return SeedMean(cell, metric, len(values), fmean(values), *_interval(values))


def _differences(by_cell: Mapping[str, Mapping[int, Variant]], means: Sequence[SeedMean]) -> Iterator[Difference]:
    """Yield the differences from the reference in each sweep, and from the best cell of each quality."""
    for factor in ("rank", "modules", "quantisation"):
        swept = levels(factor, list(by_cell))
        others = [cell for cell in swept.values() if cell != REFERENCE.name]
        if REFERENCE.name in by_cell:
            yield from (
                _difference(factor, REFERENCE.name, cell, metric, by_cell)
                for metric in COMPARED_METRICS
                for cell in others
            )
    for quality in QUALITIES if by_cell else ():
        best = best_cell(means, quality)
        yield from (_difference("best", best, cell, quality, by_cell) for cell in by_cell if cell != best)


def _difference(
    factor: str, first: str, second: str, metric: str, by_cell: Mapping[str, Mapping[int, Variant]]
) -> Difference:
    seeds = sorted(by_cell[first].keys() & by_cell[second].keys())
    differences = [by_cell[second][seed].numbers[metric] - by_cell[first][seed].numbers[metric] for seed in seeds]
    if not differences:  # no common seed: difference of the means
        mean = fmean(v.numbers[metric] for v in by_cell[second].values())
        return Difference(factor, first, second, metric, 0, mean - _mean_value(by_cell[first], metric), None, None)
    return Difference(factor, first, second, metric, len(differences), fmean(differences), *_interval(differences))


def _mean_value(variants: Mapping[int, Variant], metric: str) -> float:
    return fmean(variant.numbers[metric] for variant in variants.values())


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    return t_interval(values) if len(values) > 1 else (None, None)
