import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from synth_assets.stats import intervals, paired, power


def test_wilson_matches_hand_arithmetic() -> None:
    low, high = intervals.wilson_interval(8, 10)
    # z = 1.959964: centre = (.8 + .192073) / 1.384146 = .716740; half = 1.416010 * sqrt(.016 + .00960365) = .226577
    assert (low, high) == pytest.approx((0.490162, 0.943318), abs=2e-6)


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (12, 12), (1, 1), (37, 443), (512, 683)])
def test_wilson_matches_its_formula(successes: int, n: int) -> None:
    z, share = NormalDist().inv_cdf(0.975), successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    expected = 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half
    assert intervals.wilson_interval(successes, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        intervals.wilson_interval(successes, n)


def test_students_interval_by_hand() -> None:
    # mean 2, standard deviation 1, t of 2 degrees 4.302653: half width 4.302653 / sqrt(3) = 2.484138
    assert intervals.t_interval([1.0, 2.0, 3.0]) == pytest.approx((-0.484138, 4.484138), abs=1e-6)
    values = [0.31, 0.35, 0.29, 0.33, 0.40]
    expected = stats.t.interval(0.9, 4, np.mean(values), stats.sem(values))
    assert intervals.t_interval(values, 0.9) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least two values, got 1"):
        intervals.t_interval([1.0])


def test_mcnemar_matches_hand_arithmetic() -> None:
    first = [True, True, False, False, False, False, False, True]
    second = [True, False, True, True, True, True, True, True]
    # discordant 6, of which 1 is only the first's: 2 * (1 + 6) / 64
    found = paired.mcnemar(first, second)
    assert found == paired.Discordance(8, 1, 5, 0.5, 14 / 64)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (0, 1), (3, 3), (12, 40), (300, 410)])
def test_mcnemar_matches_the_binomial_sum(only_first: int, only_second: int) -> None:
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    assert paired.mcnemar_p(only_first, only_second) == pytest.approx(min(1.0, 2 * tail / 2**n), rel=1e-12, abs=1e-12)


def test_mcnemar_refuses_unpaired_outcomes() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        paired.mcnemar([True], [True, False])
    with pytest.raises(ValueError, match="at least 1"):
        paired.mcnemar([], [])


def test_estimate_excludes_missing_scores() -> None:
    found = intervals.estimate([1.0, None, 0.0, 1.0, None, 1.0], list("abcdef"))
    assert (found.value, found.n, found.method) == (0.75, 4, "wilson 0.95")
    assert (found.low, found.high) == intervals.wilson_interval(3, 4)


def test_estimate_of_graded_scores_is_bootstrapped_over_clusters() -> None:
    found = intervals.estimate([0.5, 0.5, 0.25, 0.75], ["a", "a", "b", "b"])
    # both clusters have the mean 0.5, so every draw has
    assert found == intervals.Estimate(0.5, 4, 0.5, 0.5, "bootstrap 0.95")


@pytest.mark.parametrize("scores", [[], [None, None]])
def test_estimate_without_scores_raises(scores: list[None]) -> None:
    with pytest.raises(ValueError, match="no item"):
        intervals.estimate(scores, ["a"] * len(scores))


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan])
def test_estimate_refuses_scores_out_of_range(score: float) -> None:
    with pytest.raises(ValueError, match=r"in 0\.\.1"):
        intervals.estimate([score], ["a"])


def test_bootstrap_interval_agrees_with_the_normal_one() -> None:
    scores = np.random.default_rng(1).random(2_000)
    low, high = intervals.bootstrap_interval(scores.tolist(), [str(i) for i in range(2_000)])
    half = 1.96 * scores.std() / math.sqrt(2_000)
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.1 * half)


def test_repeating_items_of_a_cluster_does_not_narrow_the_interval() -> None:
    scores = np.random.default_rng(2).random(50).tolist()
    once = intervals.bootstrap_interval(scores, [str(i) for i in range(50)])
    tenfold = intervals.bootstrap_interval(scores * 10, [str(i) for i in range(50)] * 10)
    assert tenfold == pytest.approx(once)


def test_paired_bootstrap_separates_equal_from_different_models() -> None:
    clusters = [str(i) for i in range(100)]
    first, second = [0.0] * 100, [1.0] * 30 + [0.0] * 70
    same = paired.paired_bootstrap(first, first, clusters)
    clear = paired.paired_bootstrap(first, second, clusters)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert clear.difference == pytest.approx(0.3)
    assert 0.2 < clear.low < 0.3 < clear.high < 0.4
    assert clear.p_value == pytest.approx(2 / 10_001)
    with pytest.raises(ValueError, match="equal lengths"):
        paired.paired_bootstrap(first, second[1:], clusters)


def test_holm_matches_hand_arithmetic() -> None:
    # sorted .01 .03 .04 times 3 2 1 = .03 .06 .04; the last is raised to the one before it
    assert paired.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert paired.holm([0.7, 0.8]) == [1.0, 1.0]
    assert paired.holm([]) == []


def test_minimum_detectable_effect_has_the_power_it_claims() -> None:
    n, rate = 500, 0.3
    effect = power.minimum_detectable_effect(n, rate)
    # (1.959964 sqrt(.3) + .841621 sqrt(.3 - d^2)) / sqrt(500) at d = .0683: (1.073517 + .457369) / 22.36068 = .0685
    assert effect == pytest.approx(0.0685, abs=2e-4)
    rng = np.random.default_rng(3)
    draws = rng.multinomial(n, [(rate - effect) / 2, (rate + effect) / 2, 1 - rate], size=4_000)
    found = np.mean([paired.mcnemar_p(int(a), int(b)) < 0.05 for a, b, _ in draws])
    assert found == pytest.approx(0.8, abs=0.05)  # the exact test gives up a few points to be exact


def test_sample_too_small_for_any_effect_returns_infinity() -> None:
    assert power.minimum_detectable_effect(4, 0.1) == math.inf
    with pytest.raises(ValueError, match="discordant rate"):
        power.minimum_detectable_effect(100, 0)


def alternating(n: int, lost: int, won: int) -> tuple[list[float], list[float]]:
    """Scores of n items, of which the second model loses some and wins some."""
    first = [1.0] * (n - won) + [0.0] * won
    return first, [0.0] * lost + [1.0] * (n - lost)


@pytest.mark.parametrize(
    ("n", "lost", "won", "verdict"),
    [
        (1_000, 0, 0, "held"),
        (1_000, 30, 10, "held"),  # -.02 with a standard error of .0063: to -.032
        (100, 3, 1, "not shown"),  # the same with .0199: to -.06
        (1_000, 60, 10, "lost"),  # -.05
        (60, 5, 2, "not shown"),  # -.05 with a standard error of .044: to +.03
        (100, 0, 8, "held"),
    ],
)
def test_non_inferiority_needs_the_whole_interval_within_the_margin(n: int, lost: int, won: int, verdict: str) -> None:
    first, second = alternating(n, lost, won)
    found = paired.non_inferiority(first, second, list(map(str, range(n))), 0.05)
    assert (found.verdict, found.n) == (verdict, n)
    assert found.difference == pytest.approx((won - lost) / n)
    assert found.low <= found.difference <= found.high


def test_margin_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="margin"):
        paired.non_inferiority([1.0], [1.0], ["a"], 0.0)


def test_detectable_difference_matches_hand_arithmetic_and_the_binary_formula() -> None:
    # s = 1 of (1, -1, 1, -1) with ddof 1 is sqrt(4/3); (1.959964 + .841621) * 1.154701 / 2
    assert power.minimum_detectable_difference([1, -1, 1, -1]) == pytest.approx(1.617496, abs=1e-6)
    differences = [1.0] * 50 + [-1.0] * 50 + [0.0] * 400  # discordant on one item in five
    assert power.minimum_detectable_difference(differences) == pytest.approx(
        power.minimum_detectable_effect(500, 0.2), rel=0.01
    )
    with pytest.raises(ValueError, match="at least two"):
        power.minimum_detectable_difference([1.0])
