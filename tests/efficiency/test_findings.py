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


def told(variants: dict[str, Variant], wanted: list[str], timed: pl.DataFrame = NOT_TIMED) -> str:
    return "\n".join(findings(compare(variants, wanted, BASIS), timed))


def test_only_what_the_interval_shows_is_called_different(ranks: dict[str, Variant]) -> None:
    text = told(ranks, NAMES)
    assert "Rank, test loss against 8 (0.500, 0.450 to 0.550): 16 -0.100, -0.125 to -0.075 (better);" in text
    assert "not distinguishable: 4 (+0.000, -0.124 to +0.124)." in text
    assert "Best mean test loss: r16-all-none with 0.400, 0.375 to 0.425; not distinguishable from it: r4" in text
    assert "Of these r4-all-none trains the fewest parameters: 500 against 2,000 of r16-all-none." in text


def test_a_worse_level_is_called_worse(ranks: dict[str, Variant]) -> None:
    worse = {
        name: replace(v, numbers={**v.numbers, "test_loss": v.numbers["test_loss"] + 0.3}) if v.rank == 16 else v
        for name, v in ranks.items()
    }
    assert "16 +0.200, +0.175 to +0.225 (worse)" in told(worse, NAMES)


def test_equal_numbers_are_not_called_different(ranks: dict[str, Variant]) -> None:
    text = told(ranks, NAMES)  # all scores and times of a seed are the same
    assert "score against 8 (0.500, 0.500 to 0.500): not distinguishable: 4 (+0.000" in text
    assert "No swept cell's training time is distinguishable" in text


def test_what_is_missing_is_named(ranks: dict[str, Variant]) -> None:
    ranks["r4-all-none-s42"] = replace(ranks["r4-all-none-s42"], not_run="nf4 needs bitsandbytes")
    text = told(ranks, [*NAMES, "r32-all-none-s42", "r32-all-none-s43"])
    assert "Left out, not run: nf4 needs bitsandbytes: r4-all-none-s42." in text
    assert "Left out, never materialised: r32-all-none-s42 and r32-all-none-s43." in text
    assert "3 cells over 2 to 3 seeds each" in text


def test_one_seed_is_said_to_show_nothing(ranks: dict[str, Variant]) -> None:
    text = told(ranks, [name for name in NAMES if name.endswith("42")])
    assert "Differences have no interval with one seed: nothing here is called different." in text
    assert "(better)" not in text
    assert "(worse)" not in text


def test_a_single_cell_is_compared_with_nothing(made: Callable[..., Variant]) -> None:
    text = told({"r8-all-none-s42": made("r8-all-none-s42")}, ["r8-all-none-s42"])
    assert "distinguishable" not in text
    assert text.startswith("1 cell over 1 seed each, trained on 100 rows")


def test_nothing_measured_is_one_honest_sentence() -> None:
    text = told({}, ["r8-all-none-s42"])
    assert text.startswith("No cell of this study has numbers")
    assert "never materialised: r8-all-none-s42" in text


def test_latencies_say_how_often_they_were_taken(ranks: dict[str, Variant], timed: pl.DataFrame) -> None:
    text = told(ranks, NAMES, timed)
    assert "from 10 ms (r16-all-none; 99 % within 30 ms) to 20 ms (r8-all-none; 60 ms)" in text
    assert "timed once on 6 prompts with seed 42: these have no interval" in text
    assert "Other processes kept up to 0.0 cores busy meanwhile." in text


def test_every_number_of_differences_is_the_studys(ranks: dict[str, Variant]) -> None:
    study = compare(ranks, NAMES, BASIS)
    text = "\n".join(findings(study, NOT_TIMED))
    # rank against three numbers, two other levels each
    assert "6 differences from r8-all-none were judged, each alone at 95 %: were all of them 0, about 0.3" in text
    for one in study.differences:
        if one.factor == "rank" and one.metric != "seconds":
            assert f"{one.difference:+.3f}" in text


@pytest.mark.parametrize("quality", ["test loss", "score"])
def test_frontiers_are_by_means(ranks: dict[str, Variant], quality: str) -> None:
    assert f"By means, the frontier of {quality} against trainable parameters: r4-all-none" in told(ranks, NAMES)
