"""Which method when: sentences that follow from the measured numbers and from nothing else."""

from collections.abc import Iterator, Mapping, Sequence

from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.records import BASE, AdapterRecord, Comparison, Metric, PairedTest

SIGNIFICANCE = 0.05  # of a p-value; above it two models are called level
Scored = Sequence[tuple[AdapterRecord, Metric]]


def training_seconds(adapter: AdapterRecord, adapters: Sequence[AdapterRecord]) -> float:
    """From the base model to this adapter: its own training and that of each adapter it was made from."""
    return adapter.seconds + sum(other.seconds for other in adapters if other.name in adapter.data_versions)


def training_peak(adapter: AdapterRecord, adapters: Sequence[AdapterRecord]) -> int:
    """Bytes of memory that all trainings from the base model to this adapter fit in."""
    made_from = (other.peak_memory_bytes for other in adapters if other.name in adapter.data_versions)
    return max([adapter.peak_memory_bytes, *made_from])


def which_method_when(
    comparison: Comparison, adapters: Sequence[AdapterRecord], deciding: tuple[str, str]
) -> list[str]:
    """Sentences on score, training time, size and memory of the methods; two are level where p > .05.

    Args:
        comparison: with paired tests on the deciding metric.
        adapters: all of them; those that failed and controls are no method to choose.
        deciding: suite and metric.
    """
    suite, metric = deciding
    found = {m.model: m for m in comparison.metrics if (m.suite, m.metric, m.split) == (suite, metric, "test")}
    trained = [(a, found[a.name]) for a in adapters if not a.failure and a.role == "candidate" and a.name in found]
    if not trained or BASE not in found:
        return [f"No method was trained and scored on {suite} {metric} beside the base model: there is none to choose."]
    tests = {
        (t.first, t.second): t for t in comparison.tests if (t.suite, t.metric, t.split) == (suite, metric, "test")
    }
    ranked = sorted(trained, key=lambda pair: -pair[1].value)
    return [
        *_best(ranked, found[BASE], tests),
        *_not_better_than_base(ranked, tests),
        *_rivals(ranked, tests),
        *_controls(adapters, tests),
        *_time(ranked, found[BASE], tests, adapters),
        *_size(ranked),
        *_memory(ranked, adapters),
    ]


def level(test: PairedTest) -> bool:
    """Whether the items do not tell the two apart, after the correction for all tests."""
    return _p_value(test) > SIGNIFICANCE


def _best(ranked: Scored, base: Metric, tests: Mapping[tuple[str, str], PairedTest]) -> Iterator[str]:
    best, metric = ranked[0]
    text = (
        f"{_capital(display_name(best.name))} has the highest score on {metric.suite} ({metric.metric}, {metric.n} "
        f"test items): {metric.value:.1%}, {_apart(metric.value - base.value)} the base model's {base.value:.1%}"
    )
    against_base = tests.get((BASE, best.name))
    yield f"{text} ({_p(against_base)})." if against_base else f"{text}."
    told = {other.name: _between(tests, other.name, best.name) for other, _ in ranked[1:]}
    equals = [f"{display_name(name)} ({_p(test)})" for name, test in told.items() if test and level(test)]
    unknown = [display_name(name) for name, test in told.items() if test is None]
    if equals:
        yield f"It is level with {_listed(equals)}: these items do not tell them apart."
    if unknown:
        yield f"Whether it is better than {_listed(unknown)} was not tested."


def _not_better_than_base(ranked: Scored, tests: Mapping[tuple[str, str], PairedTest]) -> Iterator[str]:
    for adapter, _ in ranked:
        test = tests.get((BASE, adapter.name))
        if test and level(test):
            told = f"level with the base model ({_p(test)}): no effect of its training was shown"
            yield f"{_capital(display_name(adapter.name))} is {told}."
        elif test and test.difference < 0:
            yield f"{_capital(display_name(adapter.name))} is {_apart(test.difference)} the base model ({_p(test)})."


def _rivals(ranked: Scored, tests: Mapping[tuple[str, str], PairedTest]) -> Iterator[str]:
    """Those that are level with the best were named with it."""
    best, names = ranked[0][0].name, {adapter.name for adapter, _ in ranked}
    for (first, second), test in tests.items():
        if {first, second} <= names and not (best in (first, second) and level(test)):
            yield _pair(test)


def _controls(adapters: Sequence[AdapterRecord], tests: Mapping[tuple[str, str], PairedTest]) -> Iterator[str]:
    controls = {adapter.name for adapter in adapters if adapter.role == "control"}
    for (first, second), test in tests.items():
        if first in controls and level(test):
            yield (
                f"{_capital(display_name(second))} is level with its control, {display_name(first)} ({_p(test)}): "
                "that its gain comes from its loss is not shown."
            )
        elif first in controls:
            yield f"Against its control: {_pair(test)}"


def _pair(test: PairedTest) -> str:
    if level(test):
        return (
            f"{_capital(display_name(test.second))} is level with {display_name(test.first)}: "
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
    rivals = [name for name in timed if (test := _between(tests, name, best.name)) and level(test)]
    quicker = min(rivals, key=lambda name: timed[name], default=best.name)
    if quicker != quickest and timed[quicker] < timed[best.name]:
        yield (
            f"Among the methods level with the best, {display_name(quicker)} takes less time: "
            f"{timed[quicker]:.1f} s against {timed[best.name]:.1f} s."
        )
    gains = {name: 100 * (values[name] - base.value) / seconds for name, seconds in timed.items() if seconds > 0}
    if gains and max(gains.values()) > 0:
        name = max(gains, key=lambda one: gains[one])
        gain = f"{gains[name]:.2f} points a second over the base"
        yield f"{_capital(display_name(name))} gains most for its training time: {gain}."


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
    more = "" if smallest is best else f", against {best.trainable_parameters:,} of {display_name(best.name)}"
    yield f"{text}{more}, with a score of {metric.value:.1%}."


def _memory(ranked: Scored, adapters: Sequence[AdapterRecord]) -> Iterator[str]:
    if len(ranked) < 2 or len({adapter.peak_memory_kind for adapter, _ in ranked}) > 1:
        return
    peaks = {adapter.name: training_peak(adapter, adapters) for adapter, _ in ranked}
    least, most = min(peaks.values()), max(peaks.values())
    if least == most:
        return
    lightest, heaviest = ([display_name(name) for name, peak in peaks.items() if peak == end] for end in (least, most))
    yield (
        f"Least memory to train from the base model: {_listed(lightest)} with {_mib(least)}; "
        f"most: {_listed(heaviest)} with {_mib(most)} ({ranked[0][0].peak_memory_kind})."
    )


def _between(tests: Mapping[tuple[str, str], PairedTest], one: str, other: str) -> PairedTest | None:
    return tests.get((one, other)) or tests.get((other, one))


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
