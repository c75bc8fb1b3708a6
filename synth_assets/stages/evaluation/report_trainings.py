"""Report sections on trainings: costs, training curves and filtered data."""

from collections.abc import Sequence

from synth_assets.reporting.display_names import display_name
from synth_assets.reporting.document import Block, Cell, Section, Table, cells, drawn
from synth_assets.reporting.figures import efficiency_comparison, filtering_stats, tradeoff_analysis
from synth_assets.reporting.training_figures import dpo_training_curves, sft_training_curves
from synth_assets.schemas.records import BASE, AdapterRecord
from synth_assets.stages.evaluation.recommendations import training_peak, training_seconds
from synth_assets.stages.evaluation.report_data import ReportData
from synth_assets.training.methods import METHODS

MIB = 2**20


def cost_section(data: ReportData) -> Section:
    """Return the cost of each training, as figures and as a table."""
    head = ("adapter", "seconds", "from the base", "tokens/s", "peak MiB", "trained parameters", "USD")
    rows = []
    for adapter in data.adapters:
        if adapter.failure:
            rows.append(cells((display_name(adapter.name), f"failed: {adapter.failure}")))
            continue
        link = data.links.get(adapter.mlflow_run_id, "")
        numbers = (
            f"{adapter.seconds:.1f}",
            f"{training_seconds(adapter, data.adapters):.1f}",
            f"{adapter.tokens_per_s:,.0f}",
            f"{adapter.peak_memory_bytes / MIB:,.1f} ({adapter.peak_memory_kind})",
            f"{adapter.trainable_parameters:,}",
            f"{adapter.cost_usd:.2f}",
        )
        rows.append([Cell(display_name(adapter.name)), *(Cell(number, link) for number in numbers)])
    table: list[Block] = [Table(head, rows, head[1:])] if rows else []
    return Section("Training cost", [*_tradeoff(data), *_efficiency(data), *table])


def training_section(data: ReportData) -> Section:
    """Return the curves of supervised and of preference trainings, and the adapters without a curve."""
    with_curve = [trace for trace in data.traces if trace.training.points("loss")]
    supervised = [trace.training for trace in with_curve if METHODS[trace.adapter.method].curves == "supervised"]
    preference = [trace.training for trace in with_curve if METHODS[trace.adapter.method].curves == "preference"]
    ground = "Every other phase of the schedule is shaded."
    blocks: list[Block] = []
    if supervised:
        caption = f"Supervised training: loss and learning rate. {ground}"
        blocks.append(
            drawn("sft_training_curves", caption, lambda columns: sft_training_curves(supervised, columns=columns))
        )
    if preference:
        caption = f"Training on preferences: loss, reward margin and accuracy, learning rate. {ground}"
        blocks.append(
            drawn("dpo_training_curves", caption, lambda columns: dpo_training_curves(preference, columns=columns))
        )
    without = [trace for trace in data.traces if trace not in with_curve]
    reason = "the code version that trained it did not store one"
    blocks += [f"{display_name(trace.adapter.name)} has no curve: {trace.problem or reason}." for trace in without]
    return Section("Training curves", blocks)


def filter_section(data: ReportData) -> Section:
    """Return the outcomes of the filtered rows."""
    if not data.fates:
        return Section("Filtering", [])
    caption = "Generated and imported rows by outcome, and the scores of the kept rows"
    figure = drawn(
        "filtering_stats",
        caption,
        lambda columns: filtering_stats(data.fates, data.kept_scores, columns=columns),
    )
    return Section("Filtering", [figure])


def _tradeoff(data: ReportData) -> list[Block]:
    suite, metric = data.deciding
    trained = [a for a in data.adapters if not a.failure and a.role == "candidate"]
    drawn_models = {BASE, *(a.name for a in trained)}
    metrics = [m for m in data.comparison.metrics if (m.suite, m.metric, m.split) == (suite, metric, "test")]
    scores = [m for m in metrics if m.model in drawn_models]
    if not {a.name for a in trained} & {m.model for m in scores}:
        return []
    kinds = {a.peak_memory_kind for a in trained}
    seconds = {a.name: training_seconds(a, data.adapters) for a in trained}
    peaks = {a.name: float(training_peak(a, data.adapters)) for a in trained} if len(kinds) == 1 else {}
    kind = " or ".join(sorted(kinds))
    caption = f"{suite} {metric} against training time and against memory. Controls are left out."
    return [
        drawn(
            "tradeoff_analysis",
            caption,
            lambda columns: tradeoff_analysis(scores, seconds, peaks, memory_kind=kind, columns=columns),
        )
    ]


def _efficiency(data: ReportData) -> list[Block]:
    costs = costs_of(data)
    if not costs:
        return []
    caption = "Cost of each method. One training each, hence no interval. Controls are left out."
    return [drawn("efficiency_comparison", caption, lambda columns: efficiency_comparison(costs, columns=columns))]


def costs_of(data: ReportData) -> dict[str, dict[str, float]]:
    """Return each cost, named with its unit, by method; costs that are not known for every method are left out."""
    adapters = data.adapters
    methods = [a for a in adapters if not a.failure and a.role == "candidate"]
    kinds = {a.peak_memory_kind for a in methods}
    sizes = {trace.adapter.name: trace.size_bytes / MIB for trace in data.traces}
    tokens = {trace.adapter.name: trace.tokens for trace in data.traces}
    costs: dict[str, dict[str, float]] = {
        "trained parameters": {a.name: a.trainable_parameters for a in methods},
        "size on disk in MiB": {a.name: sizes.get(a.name, 0) for a in methods},
        "training seconds from the base model": {a.name: training_seconds(a, adapters) for a in methods},
        f"peak memory of training in MiB ({' or '.join(sorted(kinds))})": {
            a.name: training_peak(a, adapters) / MIB if len(kinds) == 1 else 0 for a in methods
        },
        "training tokens/s, without padding": {a.name: a.tokens_per_s for a in methods},
    }
    if any(a.cost_usd for a in methods):
        costs["USD from the base model"] = {
            a.name: sum(member.cost_usd for member in _lineage(a, adapters)) for a in methods
        }
    elif all(tokens.get(member.name) for a in methods for member in _lineage(a, adapters)):
        costs["tokens trained on from the base model"] = {
            a.name: sum(tokens[member.name] for member in _lineage(a, adapters)) for a in methods
        }
    return {name: values for name, values in costs.items() if values and all(values.values())}


def _lineage(adapter: AdapterRecord, adapters: Sequence[AdapterRecord]) -> list[AdapterRecord]:
    """Return the adapter and those it was trained from."""
    return [adapter, *(other for other in adapters if other.name in adapter.data_versions)]
