"""Findings of a study as sentences, derived from its numbers.

Two cells are called different if the 95 % interval of their paired difference over seeds excludes 0; otherwise they are
not distinguishable, which does not prove them equal.
"""

from collections.abc import Iterator, Sequence

import polars as pl

from synth_assets.stages.efficiency.frontier import (
    QUALITIES,
    Difference,
    Frontier,
    SeedMean,
    best_cell,
    levels,
    mean_of,
)
from synth_assets.stages.efficiency.grid import REFERENCE

METRIC_NAMES = {"test_loss": "test loss", "score": "score", "seconds": "training time"}
FACTORS = {"rank": "Rank", "modules": "Target modules", "quantisation": "Quantisation"}


def findings(study: Frontier, timed: pl.DataFrame) -> list[str]:
    """Return all sentences in reading order.

    Args:
        study: means, differences and frontiers.
        timed: LATENCIES; empty if none were measured.
    """
    if not study.cells:
        return ["No cell of this study has results.", *_missing(study)]
    return [
        *_scope(study),
        *_missing(study),
        *_best(study),
        *(line for factor in FACTORS for line in _factor(study, factor)),
        *_costs(study),
        *_pareto(study),
        *_latency(timed),
        *_uncertainty(study),
    ]


def _scope(study: Frontier) -> Iterator[str]:
    seeds = sorted({mean.n for mean in study.means})
    seed_counts = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    rows = study.rows
    cells = f"{len(study.cells)} cell{'' if len(study.cells) == 1 else 's'}"
    yield (
        f"{cells} over {seed_counts} seed{'' if seeds[-1] == 1 else 's'} each, trained on "
        f"{rows['train']:,} rows; weights selected on {rows['validation']:,} validation rows, test loss on "
        f"{rows['test']:,} other rows ({rows['test_tokens']:,} tokens), score: {study.suite} {study.metric} on "
        f"{study.items:,} validation items."
    )


def _missing(study: Frontier) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for name, reason in study.missing.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield f"Left out, {reason}: {_joined(names)}."


def _best(study: Frontier) -> Iterator[str]:
    for quality in QUALITIES:
        best = best_cell(study.means, quality)
        text = f"Best mean {METRIC_NAMES[quality]}: {best} with {_interval(_mean_of(study, best, quality))}"
        rivals = [d for d in study.differences if d.factor == "best" and d.metric == quality]
        alike = [d.second for d in rivals if not d.distinguishable]
        if not rivals:
            yield f"{text}."
        elif not alike:
            yield f"{text}, distinguishable from every other cell."
        else:
            yield f"{text}; not distinguishable from it: {_joined(alike)}."
            sizes = mean_of(study.means, "trainable_parameters")
            smallest = min([best, *alike], key=lambda cell: sizes[cell])
            if smallest != best:
                yield (
                    f"Of these, {smallest} has the fewest trainable parameters: {sizes[smallest]:,.0f} ({best}: "
                    f"{sizes[best]:,.0f})."
                )


def _factor(study: Frontier, factor: str) -> Iterator[str]:
    swept = levels(factor, study.cells)
    names = {cell: level for level, cell in swept.items()}
    for metric in ("test_loss", "score"):
        differences = [d for d in study.differences if d.factor == factor and d.metric == metric]
        if not differences:
            continue
        reference = _interval(_mean_of(study, REFERENCE.name, metric))
        heading = f"{FACTORS[factor]}, {METRIC_NAMES[metric]} against {names[REFERENCE.name]} ({reference}): "
        apart = [
            f"{names[d.second]} {_points(d)} ({_better(metric, d.difference)})"
            for d in differences
            if d.distinguishable
        ]
        alike = [f"{names[d.second]} ({_points(d)})" for d in differences if not d.distinguishable]
        parts = [
            *([_joined(apart)] if apart else []),
            *([f"not distinguishable: {_joined(alike)}"] if alike else []),
        ]
        yield f"{heading}{'; '.join(parts)}."


def _costs(study: Frontier) -> Iterator[str]:
    sizes = mean_of(study.means, "trainable_parameters")
    least, most = min(sizes, key=lambda c: sizes[c]), max(sizes, key=lambda c: sizes[c])
    if least != most:
        yield (
            f"Trainable parameters range from {sizes[least]:,.0f} ({least}) to {sizes[most]:,.0f} ({most}), "
            f"a factor of {sizes[most] / sizes[least]:.1f}."
        )
    slower = [d for d in study.differences if d.metric == "seconds" and d.distinguishable]
    base = _mean_of(study, REFERENCE.name, "seconds") if REFERENCE.name in study.cells else None
    if base and slower:
        parts = [f"{d.second} {d.difference:+.1f} s ({d.low:+.1f} to {d.high:+.1f})" for d in slower]
        yield f"Training time distinguishable from {REFERENCE.name} ({_seconds(base)}): {_joined(parts)}."
    elif base and any(d.metric == "seconds" for d in study.differences):
        yield f"No swept cell's training time is distinguishable from that of {REFERENCE.name} ({_seconds(base)})."
    peaks = mean_of(study.means, "peak_memory_bytes")
    swept = levels("quantisation", study.cells)
    if len(swept) > 1 and REFERENCE.name in peaks:
        parts = [f"{level} {peaks[cell] / 2**20:,.1f} MiB" for level, cell in swept.items()]
        yield f"Peak memory of training by quantisation ({study.memory_kind}): {_joined(parts)}."


def _pareto(study: Frontier) -> Iterator[str]:
    for name, cells in study.pareto.items():
        quality, _, cost = name.partition(" against ")
        axes = f"{METRIC_NAMES[quality]} against {cost.replace('_', ' ')}"
        yield f"By means, the frontier of {axes}: {' → '.join(cells)}."


def _latency(timed: pl.DataFrame) -> Iterator[str]:
    if timed.is_empty():
        return
    quick, slow = timed.sort("p50_s").row(0, named=True), timed.sort("p50_s").row(-1, named=True)
    seeds = sorted({name.rpartition("-s")[2] for name in timed["variant"]})
    yield (
        f"Median latency of one answer: from {1000 * quick['p50_s']:.0f} ms ({quick['cell']}; 99 % within "
        f"{1000 * quick['p99_s']:.0f} ms) to {1000 * slow['p50_s']:.0f} ms ({slow['cell']}; "
        f"{1000 * slow['p99_s']:.0f} ms), each timed once on {timed['prompts'].max()} prompts with seed "
        f"{_joined(seeds)}: these have no interval over seeds. Other processes used up to "
        f"{timed['other_cores'].max():.1f} cores during the measurement."
    )


def _uncertainty(study: Frontier) -> Iterator[str]:
    differences = [d for d in study.differences if d.factor != "best"]
    with_interval = [d for d in differences if d.low is not None]
    if differences and not with_interval:
        yield "With one seed, differences have no interval and none is called different."
    if with_interval:
        yield (
            f"{len(with_interval)} differences from {REFERENCE.name} were tested, each at 95 % without correction: if "
            f"all of them were 0, about {len(with_interval) * 0.05:.1f} would be called different."
        )


def _mean_of(study: Frontier, cell: str, metric: str) -> SeedMean:
    return next(mean for mean in study.means if (mean.cell, mean.metric) == (cell, metric))


def _interval(mean: SeedMean) -> str:
    return f"{mean.mean:.3f}" if mean.low is None else f"{mean.mean:.3f}, {mean.low:.3f} to {mean.high:.3f}"


def _seconds(mean: SeedMean) -> str:
    return f"{mean.mean:.1f} s" if mean.low is None else f"{mean.mean:.1f} s, {mean.low:.1f} to {mean.high:.1f}"


def _points(difference: Difference) -> str:
    if difference.low is None:
        return f"{difference.difference:+.3f}, one seed"
    return f"{difference.difference:+.3f}, {difference.low:+.3f} to {difference.high:+.3f}"


def _better(metric: str, difference: float) -> str:
    return "better" if (difference > 0) == QUALITIES[metric] else "worse"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
