import numpy as np
import pytest
from scipy import stats

from synth_assets.llm.gumbel_noise import INCREMENT, _gumbel, _mix, gumbel_noise, seed_tensor
from synth_assets.llm.protocols import Sampling
from synth_assets.llm.transformers_generator import nucleus, sample_token

DRAWS = 20_000
REFERENCE = 16294208416658607535  # first output of SplitMix64 seeded with 0


def test_the_mixing_function_is_splitmix64() -> None:
    import torch

    assert _mix(torch.tensor([INCREMENT])).item() % 2**64 == REFERENCE


def test_noise_belongs_to_seed_step_and_token_alone() -> None:
    import torch

    seeds = seed_tensor([7, -3, 2**63 - 1], "cpu")
    together = gumbel_noise(seeds, 5, 50)
    assert torch.equal(gumbel_noise(seeds[1:2], 5, 50)[0], together[1])
    assert torch.equal(gumbel_noise(seeds, 5, 20), together[:, :20])
    assert not torch.equal(gumbel_noise(seeds, 6, 50), together)
    assert together.unique().numel() == 150


def test_seeds_of_any_size_are_taken_modulo_two_to_the_64() -> None:
    assert seed_tensor([2**64 + 5, -1, 2**63], "cpu").tolist() == [5, -1, -(2**63)]


def test_noise_is_gumbel_distributed() -> None:
    noise = gumbel_noise(seed_tensor(range(200), "cpu"), 0, 500).flatten().numpy()
    assert np.isfinite(noise).all()
    assert stats.kstest(noise, "gumbel_r").pvalue > 0.01


def test_the_least_and_the_greatest_bits_give_finite_noise() -> None:
    import torch

    noise = _gumbel(torch.tensor([0, -1]))
    assert noise.dtype == torch.float64
    # -ln(-ln(2**-53)) = -ln(36.74) = -3.60; -ln(-ln(1 - 2**-53)) = 53 ln 2 = 36.74
    assert noise.tolist() == pytest.approx([-3.604, 36.737], abs=1e-3)


def test_neighbouring_seeds_steps_and_tokens_are_uncorrelated() -> None:
    first = gumbel_noise(seed_tensor(range(1000), "cpu"), 0, 20).numpy()
    second = gumbel_noise(seed_tensor(range(1000), "cpu"), 1, 20).numpy()
    for one, other in ((first[1:], first[:-1]), (first[:, 1:], first[:, :-1]), (first, second)):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.025  # 3.5 standard errors


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    import torch

    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -3.0])
    sampling = Sampling(temperature, 1.0, 1)
    drawn = sample_token(logits.repeat(DRAWS, 1), seed_tensor(range(DRAWS), "cpu"), 3, sampling)
    expected = torch.softmax(logits.double() / temperature, 0).numpy() * DRAWS
    counts = np.bincount(drawn.numpy(), minlength=5)
    assert stats.chisquare(counts, expected).pvalue > 0.01


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    import torch

    logits = torch.log(torch.tensor([[0.5, 0.05, 0.3, 0.15]]))
    assert torch.isfinite(nucleus(logits, 0.5)).tolist() == [[True, False, False, False]]
    assert torch.isfinite(nucleus(logits, 0.6)).tolist() == [[True, False, True, False]]
    assert torch.isfinite(nucleus(logits, 0.9)).tolist() == [[True, False, True, True]]
    drawn = sample_token(logits.repeat(5_000, 1), seed_tensor(range(5_000), "cpu"), 0, Sampling(1.0, 0.6, 1))
    counts = np.bincount(drawn.numpy(), minlength=4)
    assert counts[[1, 3]].tolist() == [0, 0]
    assert stats.chisquare(counts[[0, 2]], [5_000 * 5 / 8, 5_000 * 3 / 8]).pvalue > 0.01


def test_temperature_zero_takes_the_greatest_logit() -> None:
    import torch

    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]])
    assert sample_token(logits, seed_tensor([1, 2], "cpu"), 0, Sampling(0.0, 0.1, 1)).tolist() == [1, 0]


def test_banned_tokens_may_come_later_but_not_first() -> None:
    import torch

    logits, seeds = torch.tensor([[0.0, 3.0, 1.0]]), seed_tensor([1], "cpu")
    sampling = Sampling(0.0, 1.0, 2, banned_first=(1,))
    assert sample_token(logits.clone(), seeds, 0, sampling).tolist() == [2]
    assert sample_token(logits.clone(), seeds, 1, sampling).tolist() == [1]
