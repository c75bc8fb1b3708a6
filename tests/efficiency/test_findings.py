from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from synth_assets.stages.efficiency.findings import findings
from synth_assets.stages.efficiency.frontier import compare
from synth_assets.stages.efficiency.latencies import LATENCIES
from synth_assets.stages.efficiency.variants import Variant

BASIS = "b" * 16
NAMES = [f"r{rank}-all-none-s{seed}" for rank in (8, 4, 16) for seed in (42, 43, 44)]
NOT_TIMED = LATENCIES.to_frame()


def text_of(variants: dict[str, Variant], wanted: list[str], timed: pl.DataFrame = NOT_TIMED) -> str:
    return "\n".join(findings(compare(variants, wanted, BASIS), timed))


def test_cells_are_called_different_only_if_the_interval_excludes_0(ranks: dict[str, Variant]) -> None:
    text = text_of(ranks, NAMES)
    assert "Rank, test loss against 8 (0.500, 0.450 to 0.550): 16 -0.100, -0.125 to -0.075 (better);" in text
    assert "not distinguishable: 4 (+0.000, -0.124 to +0.124)." in text
    assert "Best mean test loss: r16-all-none with 0.400, 0.375 to 0.425; not distinguishable from it: r4" in text
    assert "Of these, r4-all-none has the fewest trainable parameters: 500 (r16-all-none: 2,000)." in text


def test_a_worse_level_is_called_worse(ranks: dict[str, Variant]) -> None:
    worse = {
        name: replace(v, numbers={**v.numbers, "test_loss": v.numbers["test_loss"] + 0.3}) if v.rank == 16 else v
        for name, v in ranks.items()
    }
    assert "16 +0.200, +0.175 to +0.225 (worse)" in text_of(worse, NAMES)


def test_equal_numbers_are_not_called_different(ranks: dict[str, Variant]) -> None:
    text = text_of(ranks, NAMES)  # all scores and times of a seed are the same
    assert "score against 8 (0.500, 0.500 to 0.500): not distinguishable: 4 (+0.000" in text
    assert "No swept cell's training time is distinguishable" in text


def test_missing_variants_are_listed_with_the_reason(ranks: dict[str, Variant]) -> None:
    ranks["r4-all-none-s42"] = replace(ranks["r4-all-none-s42"], not_run="nf4 needs bitsandbytes")
    text = text_of(ranks, [*NAMES, "r32-all-none-s42", "r32-all-none-s43"])
    assert "Left out, not run: nf4 needs bitsandbytes: r4-all-none-s42." in text
    assert "Left out, never materialised: r32-all-none-s42 and r32-all-none-s43." in text
    assert "3 cells over 2 to 3 seeds each" in text


def test_one_seed_distinguishes_nothing(ranks: dict[str, Variant]) -> None:
    text = text_of(ranks, [name for name in NAMES if name.endswith("42")])
    assert "With one seed, differences have no interval and none is called different." in text
    assert "(better)" not in text
    assert "(worse)" not in text


def test_a_single_cell_has_no_comparison(made: Callable[..., Variant]) -> None:
    text = text_of({"r8-all-none-s42": made("r8-all-none-s42")}, ["r8-all-none-s42"])
    assert "distinguishable" not in text
    assert text.startswith("1 cell over 1 seed each, trained on 100 rows")


def test_a_study_without_results_has_one_sentence() -> None:
    text = text_of({}, ["r8-all-none-s42"])
    assert text.startswith("No cell of this study has results.")
    assert "never materialised: r8-all-none-s42" in text


def test_latencies_state_the_number_of_prompts(ranks: dict[str, Variant], timed: pl.DataFrame) -> None:
    text = text_of(ranks, NAMES, timed)
    assert "from 10 ms (r16-all-none; 99 % within 30 ms) to 20 ms (r8-all-none; 60 ms)" in text
    assert "timed once on 6 prompts with seed 42: these have no interval" in text
    assert "Other processes used up to 0.0 cores during the measurement." in text


def test_every_difference_of_the_study_is_listed(ranks: dict[str, Variant]) -> None:
    study = compare(ranks, NAMES, BASIS)
    text = "\n".join(findings(study, NOT_TIMED))
    # rank against three numbers, two other levels each
    assert "6 differences from r8-all-none were tested, each at 95 % without correction: if all of them" in text
    assert "were 0, about 0.3 would be called different." in text
    for one in study.differences:
        if one.factor == "rank" and one.metric != "seconds":
            assert f"{one.difference:+.3f}" in text


@pytest.mark.parametrize("quality", ["test loss", "score"])
def test_frontiers_are_by_means(ranks: dict[str, Variant], quality: str) -> None:
    assert f"By means, the frontier of {quality} against trainable parameters: r4-all-none" in text_of(ranks, NAMES)
