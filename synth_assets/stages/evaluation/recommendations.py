"""Recommend a training method: sentences on score, time, size and memory, derived from the measured numbers."""

from collections.abc import Iterator, Mapping, Sequence

from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.records import BASE, AdapterRecord, Comparison, Metric, PairedTest

SIGNIFICANCE = 0.05  # a larger p-value is not significant
Scored = Sequence[tuple[AdapterRecord, Metric]]


def training_seconds(adapter: AdapterRecord, adapters: Sequence[AdapterRecord]) -> float:
    """Return the seconds from the base model to this adapter, including the adapters it was trained from."""
    return adapter.seconds + sum(other.seconds for other in adapters if other.name in adapter.data_versions)


def training_peak(adapter: AdapterRecord, adapters: Sequence[AdapterRecord]) -> int:
    """Return the largest peak memory, in bytes, of the trainings from the base model to this adapter."""
    parents = (other.peak_memory_bytes for other in adapters if other.name in adapter.data_versions)
    return max([adapter.peak_memory_bytes, *parents])


def recommendations(comparison: Comparison, adapters: Sequence[AdapterRecord], deciding: tuple[str, str]) -> list[str]:
    """Return sentences on score, training time, size and memory of the methods.

    Args:
        comparison: with paired tests on the deciding metric.
        adapters: all adapter records; failed adapters and controls are not recommended.
        deciding: suite and metric that decide.
    """
    suite, metric = deciding
    scores = {m.model: m for m in comparison.metrics if (m.suite, m.metric, m.split) == (suite, metric, "test")}
    trained = [(a, scores[a.name]) for a in adapters if not a.failure and a.role == "candidate" and a.name in scores]
    if not trained or BASE not in scores:
        return [
            f"No recommendation: no method was trained and scored on {suite} {metric} together with the base model."
        ]
    tests = {
        (t.first, t.second): t for t in comparison.tests if (t.suite, t.metric, t.split) == (suite, metric, "test")
    }
    ranked = sorted(trained, key=lambda pair: -pair[1].value)
    return [
        *_best(ranked, scores[BASE], tests),
        *_not_better_than_base(ranked, tests),
        *_rivals(ranked, tests),
        *_controls(adapters, tests),
        *_time(ranked, scores[BASE], tests, adapters),
        *_size(ranked),
        *_memory(ranked, adapters),
    ]


def not_significant(test: PairedTest) -> bool:
    """Return whether the corrected p-value is not significant."""
    return _p_value(test) > SIGNIFICANCE


def _best(ranked: Scored, base: Metric, tests: Mapping[tuple[str, str], PairedTest]) -> Iterator[str]:
    best, metric = ranked[0]
    text = (
        f"{_capital(display_name(best.name))} has the highest score on {metric.suite} ({metric.metric}, {metric.n} "
        f"test items): {metric.value:.1%}, {_apart(metric.value - base.value)} the base model's {base.value:.1%}"
    )
    against_base = tests.get((BASE, best.name))
    yield f"{text} ({_p(against_base)})." if against_base else f"{text}."
    rivals = {other.name: _between(tests, other.name, best.name) for other, _ in ranked[1:]}
    equals = [f"{display_name(name)} ({_p(test)})" for name, test in rivals.items() if test and not_significant(test)]
    untested = [display_name(name) for name, test in rivals.items() if test is None]
    if equals:
        yield f"It is not significantly better than {_listed(equals)}."
    if untested:
        yield f"The difference to {_listed(untested)} was not tested."


def _not_better_than_base(ranked: Scored, tests: Mapping[tuple[str, str], PairedTest]) -> Iterator[str]:
    for adapter, _ in ranked:
        test = tests.get((BASE, adapter.name))
        if test and not_significant(test):
            name = _capital(display_name(adapter.name))
            yield f"{name} does not differ significantly from the base model ({_p(test)})."
        elif test and test.difference < 0:
            yield f"{_capital(display_name(adapter.name))} is {_apart(test.difference)} the base model ({_p(test)})."


def _rivals(ranked: Scored, tests: Mapping[tuple[str, str], PairedTest]) -> Iterator[str]:
    """Compare each pair of methods; those not significantly different from the best are listed with it."""
    best, names = ranked[0][0].name, {adapter.name for adapter, _ in ranked}
    for (first, second), test in tests.items():
        if {first, second} <= names and not (best in (first, second) and not_significant(test)):
            yield _pair(test)


def _controls(adapters: Sequence[AdapterRecord], tests: Mapping[tuple[str, str], PairedTest]) -> Iterator[str]:
    controls = {adapter.name for adapter in adapters if adapter.role == "control"}
    for (first, second), test in tests.items():
        if first in controls and not_significant(test):
            yield (
                f"{_capital(display_name(second))} does not differ significantly from its control, "
                f"{display_name(first)} ({_p(test)}): there is no evidence that its loss causes the gain."
            )
        elif first in controls:
            yield f"Against its control: {_pair(test)}"


def _pair(test: PairedTest) -> str:
    if not_significant(test):
        return (
            f"{_capital(display_name(test.second))} does not differ significantly from {display_name(test.first)}: "
            f"{_points(test.difference)} on {test.n} items ({_p(test)})."
        )
    better, worse = (test.second, test.first) if test.difference > 0 else (test.first, test.second)
    return f"{_capital(display_name(better))} is {_apart(abs(test.difference))} {display_name(worse)} ({_p(test)})."


def _time(
    ranked: Scored, base: Metric, tests: Mapping[tuple[str, str], PairedTest], adapters: Sequence[AdapterRecord]
) -> Iterator[str]:
    best, best_metric = ranked[0]
    timed = {a.name: training_seconds(a, adapters) for a, _ in ranked}
    values = {a.name: metric.value for a, metric in ranked}
    quickest = min(timed, key=lambda name: timed[name])
    text = f"{_capital(display_name(quickest))} is the cheapest to train: {timed[quickest]:.1f} s from the base model"
    if quickest == best.name:
        yield f"{text}; it also scores highest."
    else:
        lost = best_metric.value - values[quickest]
        yield f"{text}, {_apart(-lost)} {display_name(best.name)}, which takes {timed[best.name]:.1f} s."
    rivals = [name for name in timed if (test := _between(tests, name, best.name)) and not_significant(test)]
    quicker = min(rivals, key=lambda name: timed[name], default=best.name)
    if quicker != quickest and timed[quicker] < timed[best.name]:
        yield (
            f"Of the methods not significantly different from the best, {display_name(quicker)} takes less time: "
            f"{timed[quicker]:.1f} s instead of {timed[best.name]:.1f} s."
        )
    gains = {name: 100 * (values[name] - base.value) / seconds for name, seconds in timed.items() if seconds > 0}
    if gains and max(gains.values()) > 0:
        name = max(gains, key=lambda model: gains[model])
        gain = f"{gains[name]:.2f} points per second over the base"
        yield f"{_capital(display_name(name))} has the highest gain per training time: {gain}."


def _size(ranked: Scored) -> Iterator[str]:
    best = ranked[0][0]
    smallest, metric = min(ranked, key=lambda pair: (pair[0].trainable_parameters, -pair[1].value))
    same = [display_name(a.name) for a, _ in ranked if a.trainable_parameters == smallest.trainable_parameters]
    if len(same) > 1:
        yield f"{_capital(_listed(same))} are the smallest adapters: {smallest.trainable_parameters:,} parameters each."
        return
    text = (
        f"{_capital(display_name(smallest.name))} is the smallest adapter: {smallest.trainable_parameters:,} parameters"
    )
    more = "" if smallest is best else f" ({display_name(best.name)}: {best.trainable_parameters:,})"
    yield f"{text}{more}, score {metric.value:.1%}."


def _memory(ranked: Scored, adapters: Sequence[AdapterRecord]) -> Iterator[str]:
    if len(ranked) < 2 or len({adapter.peak_memory_kind for adapter, _ in ranked}) > 1:
        return
    peaks = {adapter.name: training_peak(adapter, adapters) for adapter, _ in ranked}
    least, most = min(peaks.values()), max(peaks.values())
    if least == most:
        return
    lightest, heaviest = ([display_name(name) for name, peak in peaks.items() if peak == end] for end in (least, most))
    yield (
        f"Lowest peak memory of training: {_listed(lightest)} with {_mib(least)}; "
        f"highest: {_listed(heaviest)} with {_mib(most)} ({ranked[0][0].peak_memory_kind})."
    )


def _between(tests: Mapping[tuple[str, str], PairedTest], first: str, second: str) -> PairedTest | None:
    return tests.get((first, second)) or tests.get((second, first))


def _p_value(test: PairedTest) -> float:
    return test.p_value if test.p_holm is None else test.p_holm


def _p(test: PairedTest) -> str:
    value = _p_value(test)
    return "p < .0001" if value < 0.0001 else f"p = {value:.4f}".replace("0.", ".", 1)


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _apart(share: float) -> str:
    return f"{100 * abs(share):.1f} points {'below' if share < 0 else 'above'}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
