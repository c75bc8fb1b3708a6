"""Compare all models: paired tests, scores without training overlap, and the candidate's win rate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import polars as pl

from synth_assets.evals.comparison import compare
from synth_assets.llm.protocols import RewardModel
from synth_assets.schemas.records import AdapterRecord, Comparison, Metric
from synth_assets.stages.evaluation.overlap import overlapping_items, without_overlap
from synth_assets.stages.evaluation.profiles import PreferenceSpec, preferred


@dataclass(frozen=True)
class ComparedModels:
    """A comparison and the ids of the items that overlap with training texts."""

    comparison: Comparison
    overlapping: set[str]


def compare_models(
    measured: Sequence[Metric],
    tables: tuple[pl.DataFrame, pl.DataFrame],
    adapters: Sequence[AdapterRecord],
    texts: Sequence[str],
    load_reward_model: Callable[[], RewardModel],
    spec: PreferenceSpec,
) -> ComparedModels:
    """Return the comparison of the base model and all adapters.

    Args:
        measured: metrics of the scores.
        tables: ITEM_SCORES and BENCHMARK_ITEMS.
        adapters: records of all adapters, in display order.
        texts: texts that adapters were trained on.
        load_reward_model: called only if there are answers to compare.
        spec: settings of the win rate.
    """
    scores, items = tables
    result = compare(list(measured), scores, items, list(adapters))
    overlapping = overlapping_items(items, texts)
    result = replace(
        result,
        without_overlap=without_overlap(measured, scores, overlapping),
        win_rates=preferred(load_reward_model, tables, measured, result.candidate, spec),
    )
    return ComparedModels(result, overlapping)
