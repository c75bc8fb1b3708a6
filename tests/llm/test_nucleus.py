"""Sampling from the likeliest tokens draws what sampling over the sorted vocabulary draws."""

import pytest

from synth_assets.llm.gumbel_noise import gumbel_noise, seed_tensor
from synth_assets.llm.nucleus import LIKELIEST, nucleus, sample_from_nucleus

VOCABULARY = 9_000


def test_a_nucleus_by_hand() -> None:
    import torch

    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()[:, [3, 0, 2, 1]]
    # .5 alone is below .6, .5 + .3 is not: two tokens
    assert nucleus(logits, 0.6).isfinite().tolist() == [[False, True, False, True]]
    assert nucleus(logits, 0.5).isfinite().tolist() == [[False, True, False, False]]
    assert nucleus(logits, 0.96).isfinite().all()


@pytest.mark.parametrize(
    ("spread", "wide"),
    [(4.0, False), (0.1, True)],  # a few likely tokens; almost all equally likely: sorted whole
)
def test_the_draw_is_that_of_the_whole_vocabulary(spread: float, wide: bool) -> None:
    import torch

    logits = spread * torch.randn(64, VOCABULARY, generator=torch.Generator().manual_seed(1))
    sizes = nucleus(logits, 0.9).isfinite().sum(dim=1)
    assert bool((sizes > LIKELIEST).all()) == wide
    seeds = seed_tensor(range(64), "cpu")
    for step in range(20):
        expected = (nucleus(logits, 0.9) + gumbel_noise(seeds, step, VOCABULARY)).argmax(dim=1)
        assert torch.equal(sample_from_nucleus(logits, seeds, step, 0.9), expected)


def test_rows_with_small_and_large_nuclei_stand_side_by_side() -> None:
    import torch

    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(2)) * torch.tensor([[4.0], [0.1]])
    seeds = seed_tensor([5, 6], "cpu")
    together = sample_from_nucleus(logits, seeds, 0, 0.9)
    alone = [sample_from_nucleus(logits[row : row + 1], seeds[row : row + 1], 0, 0.9) for row in range(2)]
    assert torch.equal(together, torch.cat(alone))
