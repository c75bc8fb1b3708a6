from collections.abc import Callable
from dataclasses import replace

import pytest

from synth_assets.schemas.serialization import from_json, to_json
from synth_assets.stages.efficiency.frontier import Frontier, SeedMean, compare, levels, pareto
from synth_assets.stages.efficiency.variants import Variant

BASIS = "b" * 16
NAMES = [f"r{rank}-all-none-s{seed}" for rank in (8, 4, 16) for seed in (42, 43, 44)]


def means(**cells: tuple[float, float]) -> list[SeedMean]:
    """(test loss, parameters) of each cell."""
    pairs = zip(("test_loss", "trainable_parameters"), (0, 1), strict=True)
    places = list(pairs)
    return [SeedMean(cell, name, 1, both[i], None, None) for cell, both in cells.items() for name, i in places]


def test_means_have_students_interval(ranks: dict[str, Variant]) -> None:
    study = compare(ranks, NAMES, BASIS)
    [one] = [m for m in study.means if (m.cell, m.metric) == ("r8-all-none", "test_loss")]
    # mean 0.50, standard deviation 0.02, t of 2 degrees 4.303: half width 4.303 * 0.02 / sqrt(3) = 0.0497
    assert (one.n, one.mean) == (3, pytest.approx(0.5))
    assert (one.low, one.high) == (pytest.approx(0.4503, abs=1e-4), pytest.approx(0.5497, abs=1e-4))


def test_differences_are_paired_by_seed(ranks: dict[str, Variant]) -> None:
    study = compare(ranks, NAMES, BASIS)
    found = {d.second: d for d in study.differences if (d.factor, d.metric) == ("rank", "test_loss")}
    better, unclear = found["r16-all-none"], found["r4-all-none"]
    # -0.10, -0.11, -0.09: mean -0.10, standard deviation 0.01, half width 4.303 * 0.01 / sqrt(3) = 0.0248
    assert better.difference == pytest.approx(-0.10)
    assert (better.low, better.high) == (pytest.approx(-0.1248, abs=1e-4), pytest.approx(-0.0752, abs=1e-4))
    assert better.distinguishable
    assert unclear.difference == pytest.approx(0.0)
    assert not unclear.distinguishable


def test_one_seed_distinguishes_nothing(ranks: dict[str, Variant]) -> None:
    study = compare(ranks, [name for name in NAMES if name.endswith("42")], BASIS)
    assert {(m.n, m.low, m.high) for m in study.means} == {(1, None, None)}
    assert not any(d.distinguishable for d in study.differences)


def test_variants_without_results_are_listed_as_missing(ranks: dict[str, Variant]) -> None:
    ranks["r4-all-none-s42"] = replace(ranks["r4-all-none-s42"], failure="loss is nan")
    ranks["r4-all-none-s43"] = replace(ranks["r4-all-none-s43"], basis="o" * 16)
    ranks["r4-all-none-s44"] = replace(ranks["r4-all-none-s44"], not_run="no kernel", basis="o" * 16)
    study = compare(ranks, [*NAMES, "r64-all-none-s42"], BASIS)
    assert list(study.missing) == ["r4-all-none-s42", "r4-all-none-s43", "r4-all-none-s44", "r64-all-none-s42"]
    reasons = list(study.missing.values())
    assert reasons[0] == "failed: loss is nan"
    assert "other data" in reasons[1]
    assert reasons[2:] == ["not run: no kernel", "never materialised"]
    assert study.cells == ["r8-all-none", "r16-all-none"]
    assert len(study.runs) == 6


def test_a_cell_is_summarised_over_the_seeds_it_has(ranks: dict[str, Variant]) -> None:
    del ranks["r16-all-none-s44"]
    study = compare(ranks, NAMES, BASIS)
    assert {m.n for m in study.means if m.cell == "r16-all-none"} == {2}
    [found] = [d for d in study.differences if (d.second, d.metric, d.factor) == ("r16-all-none", "test_loss", "rank")]
    assert (found.n, found.difference) == (2, pytest.approx(-0.105))


def test_the_pareto_frontier_by_hand() -> None:
    # b is beaten by a in both; d costs more than c for the same loss
    found = means(a=(0.5, 10), b=(0.6, 20), c=(0.4, 30), d=(0.4, 40), e=(0.3, 50))
    assert pareto(found, "test_loss", "trainable_parameters") == ["a", "c", "e"]


def test_of_equal_costs_the_better_is_on_the_frontier() -> None:
    assert pareto(means(a=(0.5, 10), b=(0.4, 10)), "test_loss", "trainable_parameters") == ["b"]


def test_more_score_is_better(made: Callable[..., Variant]) -> None:
    variants = {
        name: made(name, score=score, trainable_parameters=size)
        for name, score, size in (("r4-all-none-s42", 0.6, 500.0), ("r8-all-none-s42", 0.5, 1000.0))
    }
    assert compare(variants, list(variants), BASIS).pareto["score against trainable_parameters"] == ["r4-all-none"]


def test_levels_are_those_measured_in_the_grids_order() -> None:
    cells = ["r16-all-none", "r8-all-none", "r8-qv-none", "r8-all-nf4", "r16-qv-none"]
    assert levels("rank", cells) == {"8": "r8-all-none", "16": "r16-all-none"}
    assert levels("modules", cells) == {"qv": "r8-qv-none", "all": "r8-all-none"}
    assert levels("quantisation", cells) == {"none": "r8-all-none", "nf4": "r8-all-nf4"}


def test_a_study_without_numbers_is_a_record_too() -> None:
    study = compare({}, NAMES, BASIS)
    assert (study.cells, study.means, study.pareto) == ([], [], {})
    assert len(study.missing) == 9


def test_a_study_survives_its_storage(ranks: dict[str, Variant]) -> None:
    study = compare(ranks, NAMES, BASIS)
    assert from_json(Frontier, to_json(study)) == study
