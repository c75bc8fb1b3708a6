"""Properties of intervals and of Holm's correction."""

from hypothesis import given
from hypothesis import strategies as st

from synth_assets.stats.intervals import wilson_interval
from synth_assets.stats.paired import holm, mcnemar_p

P_VALUES = st.lists(st.floats(0, 1), max_size=20)


@given(P_VALUES)
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(0 <= p <= corrected <= 1 for p, corrected in zip(p_values, adjusted, strict=True))
    ranked = sorted(zip(p_values, adjusted, strict=True))
    assert [corrected for _, corrected in ranked] == sorted(adjusted)


@given(P_VALUES.filter(bool), st.randoms())
def test_holm_does_not_depend_on_the_order(p_values: list[float], random: object) -> None:
    shuffled = list(range(len(p_values)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    adjusted = holm(p_values)
    assert holm([p_values[index] for index in shuffled]) == [adjusted[index] for index in shuffled]


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_within_0_and_1(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_symmetric(first: int, second: int) -> None:
    assert mcnemar_p(first, second) == mcnemar_p(second, first)
    assert 0 < mcnemar_p(first, second) <= 1
