"""The report's sections on trainings: what they took, their curves, and the data that the filter gave them."""

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


def cost_section(evidence: ReportData) -> Section:
    """What each training took, drawn beside the scores and alone, and as numbers."""
    head = ("adapter", "seconds", "from the base", "tokens/s", "peak MiB", "trained parameters", "USD")
    rows = []
    for adapter in evidence.adapters:
        if adapter.failure:
            rows.append(cells((display_name(adapter.name), f"failed: {adapter.failure}")))
            continue
        link = evidence.links.get(adapter.mlflow_run_id, "")
        numbers = (
            f"{adapter.seconds:.1f}",
            f"{training_seconds(adapter, evidence.adapters):.1f}",
            f"{adapter.tokens_per_s:,.0f}",
            f"{adapter.peak_memory_bytes / MIB:,.1f} ({adapter.peak_memory_kind})",
            f"{adapter.trainable_parameters:,}",
            f"{adapter.cost_usd:.2f}",
        )
        rows.append([Cell(display_name(adapter.name)), *(Cell(number, link) for number in numbers)])
    table: list[Block] = [Table(head, rows, head[1:])] if rows else []
    return Section("What training cost", [*_tradeoff(evidence), *_efficiency(evidence), *table])


def training_section(evidence: ReportData) -> Section:
    """The curves of the supervised trainings and of those on preferences; which adapter left none is said."""
    known = [trace for trace in evidence.traces if trace.training.points("loss")]
    supervised = [one.training for one in known if METHODS[one.adapter.method].curves == "supervised"]
    preference = [one.training for one in known if METHODS[one.adapter.method].curves == "preference"]
    ground = "On grey ground every other phase of the schedule."
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
    without = [trace for trace in evidence.traces if trace not in known]
    reason = "the version of the code that trained it kept none"
    blocks += [f"{display_name(trace.adapter.name)} has no curve: {trace.problem or reason}." for trace in without]
    return Section("How training went", blocks)


def filter_section(evidence: ReportData) -> Section:
    """What became of the rows that the filter judged."""
    if not evidence.fates:
        return Section("What the filter kept", [])
    caption = "The rows that were generated or imported, by what became of them, and the scores of those kept"
    figure = drawn(
        "filtering_stats",
        caption,
        lambda columns: filtering_stats(evidence.fates, evidence.kept_scores, columns=columns),
    )
    return Section("What the filter kept", [figure])


def _tradeoff(evidence: ReportData) -> list[Block]:
    suite, metric = evidence.deciding
    trained = [a for a in evidence.adapters if not a.failure and a.role == "candidate"]
    drawn_models = {BASE, *(a.name for a in trained)}
    found = [m for m in evidence.comparison.metrics if (m.suite, m.metric, m.split) == (suite, metric, "test")]
    scores = [m for m in found if m.model in drawn_models]
    if not {a.name for a in trained} & {m.model for m in scores}:
        return []
    kinds = {a.peak_memory_kind for a in trained}
    seconds = {a.name: training_seconds(a, evidence.adapters) for a in trained}
    peaks = {a.name: float(training_peak(a, evidence.adapters)) for a in trained} if len(kinds) == 1 else {}
    kind = " or ".join(sorted(kinds))
    caption = f"{suite} {metric} against training time and against memory. Controls are left out."
    return [
        drawn(
            "tradeoff_analysis",
            caption,
            lambda columns: tradeoff_analysis(scores, seconds, peaks, memory_kind=kind, columns=columns),
        )
    ]


def _efficiency(evidence: ReportData) -> list[Block]:
    costs = costs_of(evidence)
    if not costs:
        return []
    caption = "What each method takes. One training each: there is no interval. Controls are left out."
    return [drawn("efficiency_comparison", caption, lambda columns: efficiency_comparison(costs, columns=columns))]


def costs_of(evidence: ReportData) -> dict[str, dict[str, float]]:
    """Name of a cost, with its unit, to method to value; a cost that is not known of every method is left out."""
    adapters = evidence.adapters
    methods = [a for a in adapters if not a.failure and a.role == "candidate"]
    kinds = {a.peak_memory_kind for a in methods}
    sizes = {trace.adapter.name: trace.size_bytes / MIB for trace in evidence.traces}
    tokens = {trace.adapter.name: trace.tokens for trace in evidence.traces}
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
        costs["USD from the base model"] = {a.name: sum(one.cost_usd for one in _line(a, adapters)) for a in methods}
    elif all(tokens.get(one.name) for a in methods for one in _line(a, adapters)):
        costs["tokens trained on from the base model"] = {
            a.name: sum(tokens[one.name] for one in _line(a, adapters)) for a in methods
        }
    return {name: values for name, values in costs.items() if values and all(values.values())}


def _line(adapter: AdapterRecord, adapters: Sequence[AdapterRecord]) -> list[AdapterRecord]:
    """The adapter and those it was made from."""
    return [adapter, *(other for other in adapters if other.name in adapter.data_versions)]
