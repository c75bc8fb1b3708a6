import math

import numpy as np
import pytest

from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.gguf import BYTES_PER_PARAMETER, QUANTISATIONS
from synth_assets.stages.export.gguf_quality import (
    GREEDY_PROMPTS,
    MAX_PERPLEXITY_RATIO,
    QUESTIONS,
    GreedyComparison,
    GreedyDifference,
    Perplexity,
    first_difference,
    perplexity,
)
from synth_assets.stages.export.write import GgufFile, GgufOptions, GgufResult

TIE, OTHER = GreedyDifference(0, 0, "a", "b", 0.1), GreedyDifference(0, 0, "a", "b", 0.11)


def file(name: str, size: int, ratio: float | None) -> GgufFile:
    return GgufFile(name, f"model-{name}.gguf", size, Perplexity(3.0, ratio, 0.0, 1, 1) if ratio else None)


def test_perplexity_matches_hand_arithmetic() -> None:
    expected, actual = np.log([0.5, 0.5]), np.log([0.25, 0.5])
    measured = perplexity(expected, actual, rows=1)
    # exp(-(ln .25 + ln .5) / 2) = sqrt(8); of Transformers 2
    assert measured.value == pytest.approx(math.sqrt(8))
    assert measured.ratio == pytest.approx(math.sqrt(2))
    assert measured.largest_nats == pytest.approx(math.log(2))
    assert (measured.rows, measured.tokens) == (1, 2)


@pytest.mark.parametrize(("ratio", "lost"), [(MAX_PERPLEXITY_RATIO, False), (1.0501, True), (math.nan, True)])
def test_edge_of_lost_quality(ratio: float, lost: bool) -> None:
    measured = Perplexity(3.0, ratio, 0.0, 1, 1)
    assert measured.lost_quality is lost
    assert ("LOST QUALITY" in GgufFile("q8_0", "m", 1, measured).text()) is lost


def test_ties_explain_a_difference() -> None:
    assert TIE.explained
    assert GreedyDifference(0, 0, "a", "b", -0.1).explained
    assert not OTHER.explained
    assert not GreedyDifference(0, 0, "a", "b", math.nan).explained


def test_49_of_50_equal_texts_pass_and_48_need_explanations() -> None:
    assert GreedyComparison(50, 64, [OTHER]).passed
    assert not GreedyComparison(50, 64, [OTHER, OTHER]).passed
    assert not GreedyComparison(50, 64, [OTHER, TIE]).passed
    assert GreedyComparison(50, 64, [TIE, TIE, TIE]).passed
    assert not GreedyComparison(4, 64, [OTHER]).passed
    assert "49 of 50 prompts of 64 tokens; first differences: prompt 0 token 0 (0.110 nats)" in (
        GreedyComparison(50, 64, [OTHER]).text()
    )


def test_first_difference() -> None:
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1, 3]) == 1
    assert first_difference([1, 2], [1]) == 1
    assert len(set(QUESTIONS)) == GREEDY_PROMPTS


def test_the_smallest_good_file_is_chosen() -> None:
    f16, q8, q4 = file("f16", 100, 1.0), file("q8_0", 50, 1.0), file("q4_k_m", 30, 1.2)
    greedy = GreedyComparison(50, 64)
    assert GgufResult([f16, q8, q4], greedy, "auto", adds_bos=False).smallest_good() == q8
    assert GgufResult([f16, q8, q4], greedy, "auto", adds_bos=False).lost_quality() == ["q4_k_m"]
    assert GgufResult([q4], greedy, "auto", adds_bos=False).smallest_good() == q4
    assert GgufResult([f16, file("q8_0", 50, None)], greedy, "auto", adds_bos=False).smallest_good().bytes == 50


def test_unknown_quantisations_are_refused() -> None:
    GgufOptions().check()
    assert set(BYTES_PER_PARAMETER) == set(QUANTISATIONS)
    with pytest.raises(ExportError, match="quantisations must be some of f16, q8_0, q4_k_m, got q3"):
        GgufOptions(("f16", "q3")).check()
    with pytest.raises(ExportError, match="got none"):
        GgufOptions(()).check()
