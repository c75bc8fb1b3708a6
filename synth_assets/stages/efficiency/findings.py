"""What follows from a study, in sentences that the numbers give and nothing else.

Two cells are called different where the 95 % interval of their paired difference over seeds leaves 0 out; otherwise
they are not distinguishable, which is no proof that they are equal.
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

SHOWN = {"test_loss": "test loss", "score": "score", "seconds": "training time"}
FACTORS = {"rank": "Rank", "modules": "Target modules", "quantisation": "Quantisation"}


def findings(study: Frontier, timed: pl.DataFrame) -> list[str]:
    """All sentences, in the order they are read.

    Args:
        study: means, differences and frontiers.
        timed: LATENCIES; empty where none were taken.
    """
    if not study.cells:
        return ["No cell of this study has numbers: there is nothing to compare.", *_missing(study)]
    return [
        *_scope(study),
        *_missing(study),
        *_best(study),
        *(line for factor in FACTORS for line in _factor(study, factor)),
        *_costs(study),
        *_pareto(study),
        *_latency(timed),
        *_how_sure(study),
    ]


def _scope(study: Frontier) -> Iterator[str]:
    seeds = sorted({one.n for one in study.means})
    told = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    rows = study.rows
    cells = f"{len(study.cells)} cell{'' if len(study.cells) == 1 else 's'}"
    yield (
        f"{cells} over {told} seed{'' if seeds[-1] == 1 else 's'} each, trained on "
        f"{rows['train']:,} rows; weights selected on {rows['validation']:,} validation rows, test loss on "
        f"{rows['test']:,} other rows ({rows['test_tokens']:,} tokens), score: {study.suite} {study.metric} on "
        f"{study.items:,} validation items."
    )


def _missing(study: Frontier) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for name, reason in study.missing.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield f"Left out, {reason}: {_listed(names)}."


def _best(study: Frontier) -> Iterator[str]:
    for quality in QUALITIES:
        best = best_cell(study.means, quality)
        text = f"Best mean {SHOWN[quality]}: {best} with {_interval(_one(study, best, quality))}"
        rivals = [d for d in study.differences if d.factor == "best" and d.metric == quality]
        alike = [d.second for d in rivals if not d.distinguishable]
        if not rivals:
            yield f"{text}."
        elif not alike:
            yield f"{text}, distinguishable from every other cell."
        else:
            yield f"{text}; not distinguishable from it: {_listed(alike)}."
            sizes = mean_of(study.means, "trainable_parameters")
            smallest = min([best, *alike], key=lambda cell: sizes[cell])
            if smallest != best:
                yield (
                    f"Of these {smallest} trains the fewest parameters: {sizes[smallest]:,.0f} against "
                    f"{sizes[best]:,.0f} of {best}."
                )


def _factor(study: Frontier, factor: str) -> Iterator[str]:
    swept = levels(factor, study.cells)
    names = {cell: level for level, cell in swept.items()}
    for metric in ("test_loss", "score"):
        found = [d for d in study.differences if d.factor == factor and d.metric == metric]
        if not found:
            continue
        reference = _interval(_one(study, REFERENCE.name, metric))
        told = f"{FACTORS[factor]}, {SHOWN[metric]} against {names[REFERENCE.name]} ({reference}): "
        apart = [
            f"{names[d.second]} {_points(d)} ({_better(metric, d.difference)})" for d in found if d.distinguishable
        ]
        alike = [f"{names[d.second]} ({_points(d)})" for d in found if not d.distinguishable]
        parts = [*([_listed(apart)] if apart else []), *([f"not distinguishable: {_listed(alike)}"] if alike else [])]
        yield f"{told}{'; '.join(parts)}."


def _costs(study: Frontier) -> Iterator[str]:
    sizes = mean_of(study.means, "trainable_parameters")
    least, most = min(sizes, key=lambda c: sizes[c]), max(sizes, key=lambda c: sizes[c])
    if least != most:
        yield (
            f"Trainable parameters go from {sizes[least]:,.0f} ({least}) to {sizes[most]:,.0f} ({most}), "
            f"{sizes[most] / sizes[least]:.1f} times as many."
        )
    slower = [d for d in study.differences if d.metric == "seconds" and d.distinguishable]
    base = _one(study, REFERENCE.name, "seconds") if REFERENCE.name in study.cells else None
    if base and slower:
        told = [f"{d.second} {d.difference:+.1f} s ({d.low:+.1f} to {d.high:+.1f})" for d in slower]
        yield f"Training time distinguishable from {REFERENCE.name} ({_seconds(base)}): {_listed(told)}."
    elif base and any(d.metric == "seconds" for d in study.differences):
        yield f"No swept cell's training time is distinguishable from that of {REFERENCE.name} ({_seconds(base)})."
    peaks = mean_of(study.means, "peak_memory_bytes")
    swept = levels("quantisation", study.cells)
    if len(swept) > 1 and REFERENCE.name in peaks:
        told = [f"{level} {peaks[cell] / 2**20:,.1f} MiB" for level, cell in swept.items()]
        yield f"Peak memory of training by quantisation ({study.memory_kind}): {_listed(told)}."


def _pareto(study: Frontier) -> Iterator[str]:
    for name, cells in study.pareto.items():
        quality, _, cost = name.partition(" against ")
        yield f"By means, the frontier of {SHOWN[quality]} against {cost.replace('_', ' ')}: {' → '.join(cells)}."


def _latency(timed: pl.DataFrame) -> Iterator[str]:
    if timed.is_empty():
        return
    quick, slow = timed.sort("p50_s").row(0, named=True), timed.sort("p50_s").row(-1, named=True)
    seeds = sorted({name.rpartition("-s")[2] for name in timed["variant"]})
    yield (
        f"Median time of one answer: from {1000 * quick['p50_s']:.0f} ms ({quick['cell']}; 99 % within "
        f"{1000 * quick['p99_s']:.0f} ms) to {1000 * slow['p50_s']:.0f} ms ({slow['cell']}; "
        f"{1000 * slow['p99_s']:.0f} ms), each timed once on {timed['prompts'].max()} prompts with seed "
        f"{_listed(seeds)}: these have no interval over seeds. Other processes kept up to "
        f"{timed['other_cores'].max():.1f} cores busy meanwhile."
    )


def _how_sure(study: Frontier) -> Iterator[str]:
    told = [d for d in study.differences if d.factor != "best"]
    judged = [d for d in told if d.low is not None]
    if told and not judged:
        yield "Differences have no interval with one seed: nothing here is called different."
    if judged:
        yield (
            f"{len(judged)} differences from {REFERENCE.name} were judged, each alone at 95 %: were all of them 0, "
            f"about {len(judged) * 0.05:.1f} would still be called different."
        )


def _one(study: Frontier, cell: str, metric: str) -> SeedMean:
    return next(one for one in study.means if (one.cell, one.metric) == (cell, metric))


def _interval(one: SeedMean) -> str:
    return f"{one.mean:.3f}" if one.low is None else f"{one.mean:.3f}, {one.low:.3f} to {one.high:.3f}"


def _seconds(one: SeedMean) -> str:
    return f"{one.mean:.1f} s" if one.low is None else f"{one.mean:.1f} s, {one.low:.1f} to {one.high:.1f}"


def _points(difference: Difference) -> str:
    if difference.low is None:
        return f"{difference.difference:+.3f}, one seed"
    return f"{difference.difference:+.3f}, {difference.low:+.3f} to {difference.high:+.3f}"


def _better(metric: str, difference: float) -> str:
    return "better" if (difference > 0) == QUALITIES[metric] else "worse"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
