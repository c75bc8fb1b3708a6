"""Losses on pairs of responses that need no reference: the odds ratio of ORPO and the margin of SimPO."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ResponseLogprobs:
    """Log-probabilities of the responses of a batch under the policy, in nats.

    Attributes:
        chosen: (pairs,) mean over the tokens of each chosen response.
        rejected: (pairs,) mean over the tokens of each rejected response.
        nll: negative log-likelihood per token over all chosen responses, a scalar.
    """

    chosen: "Tensor"
    rejected: "Tensor"
    nll: "Tensor"


PairLoss = Callable[[ResponseLogprobs], "tuple[Tensor, Tensor]"]
"""Returns the loss of a batch, a scalar, and the (pairs,) reward margins."""


def response_logprobs(tokens: "Tensor", mask: "Tensor") -> ResponseLogprobs:
    """Return the log-probabilities of a batch that stacks its chosen responses on its rejected ones.

    Args:
        tokens: (2 x pairs, positions) log-probability of each token in nats, 0 outside of the responses.
        mask: the same shape, 1 at tokens of the responses.
    """
    sums, lengths = tokens.sum(dim=1), mask.sum(dim=1)
    chosen, rejected = (sums / lengths).chunk(2)
    return ResponseLogprobs(chosen, rejected, -sums.chunk(2)[0].sum() / lengths.chunk(2)[0].sum())


def odds_ratio_loss(weight: float) -> PairLoss:
    """Return the loss of ORPO (Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7).

    The odds of a response are p / (1 - p), where log p is its mean log-probability per token. The reward margin is the
    difference of these means: it does not depend on `weight`, and a control has one too.
    """

    def loss(logprobs: ResponseLogprobs) -> "tuple[Tensor, Tensor]":
        from torch.nn.functional import logsigmoid

        margins = logprobs.chosen - logprobs.rejected
        log_odds_ratio = margins - (_log1mexp(logprobs.chosen) - _log1mexp(logprobs.rejected))
        return logprobs.nll - weight * logsigmoid(log_odds_ratio).mean(), margins.detach()

    return loss


def simpo_loss(beta: float, target_margin: float, weight: float, sft_weight: float) -> PairLoss:
    """Return the loss of SimPO (Meng et al. 2024, arXiv 2405.14734, eq. 6), times `weight`.

    The reward of a response is `beta` x its mean log-probability per token. `sft_weight` x the negative log-likelihood
    per token of the chosen responses is added.
    """

    def loss(logprobs: ResponseLogprobs) -> "tuple[Tensor, Tensor]":
        from torch.nn.functional import logsigmoid

        margins = beta * (logprobs.chosen - logprobs.rejected)
        value = -weight * logsigmoid(margins - target_margin).mean() + sft_weight * logprobs.nll
        return value, margins.detach()

    return loss


def _log1mexp(x: "Tensor") -> "Tensor":
    """Compute log(1 - exp(x)) for x below 0 without cancellation on either side of -log 2."""
    import torch

    x = x.clamp(max=-torch.finfo(x.dtype).eps)  # a response of probability 1 has infinite odds
    return torch.where(x < -0.6931472, torch.log1p(-torch.exp(x)), torch.log(-torch.expm1(x)))
