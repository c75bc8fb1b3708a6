import numpy as np
import pytest

from synth_assets.preference.margin import implicit_reward_margin


def test_margin_matches_hand_arithmetic() -> None:
    policy = np.array([[-1.0, -5.0], [-4.0, -2.0]])
    reference = np.array([[-2.0, -4.0], [-4.0, -2.0]])
    # pair 0: 0.5 * ((-1 + 2) - (-5 + 4)) = 1; pair 1 equals its reference, so 0
    assert implicit_reward_margin(policy, reference, beta=0.5).tolist() == [1.0, 0.0]


def test_margin_is_negative_where_the_policy_disagrees() -> None:
    # 0.1 * ((-3 + 2) - (-1 + 2)) = -0.2
    margin = implicit_reward_margin(np.array([[-3.0, -1.0]]), np.array([[-2.0, -2.0]]), beta=0.1)
    assert margin.tolist() == pytest.approx([-0.2])


def test_no_pairs_have_no_margins() -> None:
    assert implicit_reward_margin(np.empty((0, 2)), np.empty((0, 2)), beta=1.0).shape == (0,)


@pytest.mark.parametrize(("policy", "reference"), [((2, 2), (3, 2)), ((2, 3), (2, 3)), ((2,), (2,))])
def test_other_shapes_are_refused(policy: tuple[int, ...], reference: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two equal shapes \(pairs, 2\)"):
        implicit_reward_margin(np.zeros(policy), np.zeros(reference), beta=1.0)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_beta_must_be_above_zero(beta: float) -> None:
    with pytest.raises(ValueError, match="beta is"):
        implicit_reward_margin(np.zeros((1, 2)), np.zeros((1, 2)), beta=beta)
