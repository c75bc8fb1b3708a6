"""The variants of a study side by side: means over seeds with intervals, paired differences, Pareto frontiers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from synth_assets.stages.efficiency.grid import MODULES, QUANTISATIONS, RANKS, REFERENCE, Cell, cell_of
from synth_assets.stages.efficiency.variants import Variant
from synth_assets.stats.intervals import t_interval

QUALITIES: Mapping[str, bool] = {"test_loss": False, "score": True}
"""What a study is for, to whether more of it is better."""
COSTS = ("trainable_parameters", "peak_memory_bytes", "seconds")
METRICS = (
    *("test_loss", "test_perplexity", "validation_loss", "validation_perplexity", "score"),
    *("trainable_parameters", "adapter_bytes", "peak_memory_bytes", "tokens_per_s", "seconds"),
)
COMPARED = ("test_loss", "score", "seconds")
NEVER = "never materialised"
OTHER_BASIS = "made from other data, settings or code than this study: materialise it again"


@dataclass(frozen=True)
class SeedMean:
    """A cell's mean of one number over `n` seeds, with Student's 95 % interval (None: one seed)."""

    cell: str
    metric: str
    n: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Second minus first cell, paired by seed, with Student's 95 % interval (None: one common seed)."""

    factor: str  # in which they differ
    first: str
    second: str
    metric: str
    n: int
    difference: float
    low: float | None
    high: float | None

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Frontier:
    """What a study found.

    Args:
        wanted: the variants it was asked for.
        missing: of these, those without numbers, and why.
        cells: measured, in the order of the grid.
        means: METRICS of each cell.
        differences: from the reference, and from the best cell by each quality.
        pareto: "quality against cost" to its frontier, by means and rising cost.
        rows: split to number of rows, and "test_tokens".
        suite: whose `metric` is the score, on `items` validation items.
        metric: of the suite.
        items: how many.
        memory_kind: "measured" or "derived".
        runs: variant to its MLflow run.
        findings: what follows, in sentences.
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
    """The study without its findings.

    Args:
        variants: every one that was made.
        wanted: those that the study was asked for.
        basis: what they share; the others are left out by name.
    """
    missing = {name: reason for name in wanted if (reason := _unusable(variants.get(name), basis))}
    used = [variants[name] for name in wanted if name not in missing]
    by_cell: dict[str, dict[int, Variant]] = defaultdict(dict)
    for variant in used:
        by_cell[variant.cell][variant.seed] = variant
    means = [_mean(cell, metric, list(by_seed.values())) for cell, by_seed in by_cell.items() for metric in METRICS]
    one = used[0] if used else None
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
        rows={**one.rows, "test_tokens": int(one.numbers["test_tokens"])} if one else {},
        suite=one.suite if one else "",
        metric=one.metric if one else "",
        items=int(one.numbers["items"]) if one else 0,
        memory_kind=" or ".join(sorted({variant.peak_memory_kind for variant in used})),
        runs={variant.name: variant.mlflow_run_id for variant in used},
    )


def pareto(means: Sequence[SeedMean], quality: str, cost: str) -> list[str]:
    """The cells that no other beats in one of the two means and equals in the other, by rising cost."""
    sign = -1 if QUALITIES[quality] else 1
    worth, costs = mean_of(means, quality), mean_of(means, cost)
    ranked = sorted(costs, key=lambda cell: (costs[cell], sign * worth[cell]))
    found: list[str] = []
    for cell in ranked:
        if not found or sign * worth[cell] < sign * worth[found[-1]]:
            found.append(cell)
    return found


def mean_of(means: Sequence[SeedMean], metric: str) -> dict[str, float]:
    """Cell to mean of one number."""
    return {one.cell: one.mean for one in means if one.metric == metric}


def best_cell(means: Sequence[SeedMean], quality: str) -> str:
    """The cell with the best mean."""
    worth = mean_of(means, quality)
    return (max if QUALITIES[quality] else min)(worth, key=lambda cell: worth[cell])


def levels(factor: str, cells: Sequence[str]) -> dict[str, str]:
    """The cells of a one-factor sweep around the reference, as level to name, in the grid's order.

    Args:
        factor: "rank", "modules" or "quantisation".
        cells: those there are; a level whose cell is not among them is left out.
    """
    ladder: dict[str, list[Cell]] = {
        "rank": [cell_of(rank, REFERENCE.modules, REFERENCE.quantisation) for rank in RANKS],
        "modules": [cell_of(REFERENCE.rank, modules, REFERENCE.quantisation) for modules in MODULES],
        "quantisation": [cell_of(REFERENCE.rank, REFERENCE.modules, name) for name in QUANTISATIONS],
    }
    return {str(getattr(cell, factor)): cell.name for cell in dict.fromkeys(ladder[factor]) if cell.name in cells}


def _unusable(variant: Variant | None, basis: str) -> str:
    if variant is None:
        return NEVER
    if variant.not_run:
        return f"not run: {variant.not_run}"
    if variant.basis != basis:
        return OTHER_BASIS
    return f"failed: {variant.failure}" if variant.failure else ""


def _mean(cell: str, metric: str, variants: Sequence[Variant]) -> SeedMean:
    values = [variant.numbers[metric] for variant in variants]
    return SeedMean(cell, metric, len(values), fmean(values), *_interval(values))


def _differences(by_cell: Mapping[str, Mapping[int, Variant]], means: Sequence[SeedMean]) -> Iterator[Difference]:
    """From the reference in each sweep, and from the best cell of each quality."""
    for factor in ("rank", "modules", "quantisation"):
        swept = levels(factor, list(by_cell))
        others = [cell for cell in swept.values() if cell != REFERENCE.name]
        if REFERENCE.name in by_cell:
            yield from (
                _difference(factor, REFERENCE.name, cell, metric, by_cell) for metric in COMPARED for cell in others
            )
    for quality in QUALITIES if by_cell else ():
        best = best_cell(means, quality)
        yield from (_difference("best", best, cell, quality, by_cell) for cell in by_cell if cell != best)


def _difference(
    factor: str, first: str, second: str, metric: str, by_cell: Mapping[str, Mapping[int, Variant]]
) -> Difference:
    seeds = sorted(by_cell[first].keys() & by_cell[second].keys())
    found = [by_cell[second][seed].numbers[metric] - by_cell[first][seed].numbers[metric] for seed in seeds]
    if not found:  # no common seed: the means alone
        mean = fmean(v.numbers[metric] for v in by_cell[second].values())
        return Difference(factor, first, second, metric, 0, mean - _plain(by_cell[first], metric), None, None)
    return Difference(factor, first, second, metric, len(found), fmean(found), *_interval(found))


def _plain(variants: Mapping[int, Variant], metric: str) -> float:
    return fmean(variant.numbers[metric] for variant in variants.values())


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    return t_interval(values) if len(values) > 1 else (None, None)
