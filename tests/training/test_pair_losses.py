import math

import pytest

from synth_assets.training.pair_losses import ResponseLogprobs, odds_ratio_loss, response_logprobs, simpo_loss

HALF, QUARTER = math.log(0.5), math.log(0.25)


def logprobs(chosen: float, rejected: float, nll: float = 2.0) -> ResponseLogprobs:
    import torch

    return ResponseLogprobs(torch.tensor([chosen]), torch.tensor([rejected]), torch.tensor(nll))


def test_the_means_are_over_the_tokens_of_each_response() -> None:
    import torch

    tokens = torch.tensor([[-1.0, -2.0, 0.0], [-4.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [-1.0, -1.0, -4.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]])
    actual = response_logprobs(tokens, mask)
    assert actual.chosen.tolist() == [-1.5, -4.0]
    assert actual.rejected.tolist() == [-3.0, -2.0]
    assert actual.nll.item() == pytest.approx(7 / 3)  # 1 + 2 + 4 over 3 tokens


def test_the_odds_ratio_loss_matches_hand_arithmetic() -> None:
    # odds of 0.5 are 1, odds of 0.25 are 1/3: their ratio is 3, and -log sigmoid(log 3) = -log 3/4
    loss, margins = odds_ratio_loss(0.5)(logprobs(HALF, QUARTER))
    assert loss.item() == pytest.approx(2.0 - 0.5 * math.log(0.75), rel=1e-6)
    assert margins.tolist() == pytest.approx([math.log(2)])
    control, _ = odds_ratio_loss(0.0)(logprobs(HALF, QUARTER))
    assert control.item() == 2.0


def test_a_certain_response_has_finite_odds_and_gradient() -> None:
    import torch

    chosen = torch.zeros(1, requires_grad=True)
    loss, _ = odds_ratio_loss(1.0)(ResponseLogprobs(chosen, torch.tensor([HALF]), -chosen.mean()))
    loss.backward()
    assert math.isfinite(loss.item())
    assert chosen.grad is not None
    assert math.isfinite(chosen.grad.item())


def test_the_simpo_loss_matches_hand_arithmetic() -> None:
    # 2 x (log 1/2 - log 1/4) - log 4 = 0, and -log sigmoid(0) = log 2
    loss, margins = simpo_loss(2.0, math.log(4), weight=3.0, sft_weight=0.5)(logprobs(HALF, QUARTER))
    assert loss.item() == pytest.approx(3 * math.log(2) + 0.5 * 2.0, rel=1e-6)
    assert margins.tolist() == pytest.approx([math.log(4)])
