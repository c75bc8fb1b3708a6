"""Nucleus sampling (Holtzman et al. 2019, arXiv 1904.09751): the fewest tokens that have `top_p` of the probability."""

from typing import TYPE_CHECKING

from synth_assets.llm.gumbel_noise import gumbel_noise, noise_of_tokens

if TYPE_CHECKING:
    import torch

LARGE_VOCABULARY = 8_192  # from here on sorting all logits costs as much as the forward pass of a small model
LIKELIEST = 1_024  # tokens looked at first; a row whose nucleus is larger is sorted whole


def nucleus(logits: "torch.Tensor", top_p: float) -> "torch.Tensor":
    """Return (rows, vocabulary) logits with -inf outside the nucleus of each row."""
    import torch

    ordered, order = logits.sort(dim=1, descending=True, stable=True)
    shares = ordered.softmax(dim=1)
    outside = shares.cumsum(dim=1) - shares >= top_p
    return logits.masked_fill(outside.scatter(1, order, outside), -torch.inf)


def sample_from_nucleus(logits: "torch.Tensor", seeds: "torch.Tensor", step: int, top_p: float) -> "torch.Tensor":
    """Return the token that each row draws from its nucleus, (rows,) int64.

    The draw is that of `nucleus` and `gumbel_noise` over the whole vocabulary, but for rounding in the last digit of a
    share: only the likeliest tokens are sorted, and only they get noise.

    Args:
        logits: (rows, vocabulary), of at least LIKELIEST tokens.
        seeds: (rows,) int64, a stream for each row.
        step: position of the token in its row.
        top_p: share of the probability, in (0, 1).
    """
    import torch

    likely, tokens = logits.topk(LIKELIEST, dim=1)
    shares = (likely - logits.logsumexp(dim=1, keepdim=True)).exp()
    outside = shares.cumsum(dim=1) - shares >= top_p
    noise = noise_of_tokens(seeds, step, tokens)
    best = (likely.masked_fill(outside, -torch.inf) + noise).argmax(dim=1, keepdim=True)
    drawn = tokens.gather(1, best)[:, 0]
    wide = (~outside[:, -1]).nonzero()[:, 0]  # more tokens may belong to these nuclei
    if len(wide):
        noise = gumbel_noise(seeds[wide], step, logits.shape[1])
        drawn[wide] = (nucleus(logits[wide], top_p) + noise).argmax(dim=1)
    return drawn
