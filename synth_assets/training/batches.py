"""Batch sampler: group rows into batches and order the batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from synth_assets.training.specs import OptimizationSpec

Batch = list[int]


@dataclass
class Batches:
    """Batch sampler that yields row indices, one epoch per iteration.

    Randomness comes from torch's global generator at the start of an epoch. `epoch` holds the batches of the current
    epoch. To resume inside an epoch, pass its batches as `resumed`; the next iteration repeats them.

    Args:
        lengths: tokens of each row.
        spec: sets the order and the token budget.
        size: rows per batch, unless a token budget is set.
        accumulation: batches per optimiser step; rows of one step have similar lengths.
        difficulty: difficulty of each row, for the curriculum.
    """

    lengths: Sequence[int]
    spec: OptimizationSpec
    size: int
    accumulation: int
    difficulty: Sequence[float] = ()
    epoch: list[Batch] = field(default_factory=list)
    resumed: list[Batch] = field(default_factory=list)

    drop_last = False  # read by accelerate, like batch_size

    @property
    def batch_size(self) -> int:
        """Return the number of rows in the largest batch."""
        return self.size

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        if self.spec.batch_tokens:
            return len(token_batches(self.lengths, range(len(self.lengths)), self.spec.batch_tokens))
        return math.ceil(len(self.lengths) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        self.epoch, self.resumed = self.resumed or self._draw_epoch(), []
        yield from self.epoch

    def _draw_epoch(self) -> list[Batch]:
        import torch

        rows = len(self.lengths)
        if self.spec.order == "curriculum":
            shuffled = torch.randperm(rows).tolist()  # ties in random order
            rank = sorted(shuffled, key=lambda row: self.difficulty[row])
        elif self.spec.order == "random":
            rank = torch.randperm(rows).tolist()
        else:
            return self._length_grouped()
        if self.spec.batch_tokens:
            return self._token_batches_by_rank(rank)
        return fixed_batches(rank, self.size)

    def _length_grouped(self) -> list[Batch]:
        """Group rows of similar length as Transformers does; with a token budget, shuffle the batches."""
        import torch
        from transformers.trainer_pt_utils import get_length_grouped_indices

        if self.spec.batch_tokens:
            batches = token_batches(self.lengths, range(len(self.lengths)), self.spec.batch_tokens)
            return [batches[number] for number in torch.randperm(len(batches)).tolist()]
        order = get_length_grouped_indices(self.lengths, self.size * self.accumulation)
        return fixed_batches(order, self.size)

    def _token_batches_by_rank(self, rank: Sequence[int]) -> list[Batch]:
        """Return the batches of a token budget, ordered by the mean position of their rows in `rank`."""
        position = {row: index for index, row in enumerate(rank)}
        batches = token_batches(self.lengths, range(len(self.lengths)), self.spec.batch_tokens or 0)
        return sorted(batches, key=lambda batch: sum(position[row] for row in batch) / len(batch))


def fixed_batches(rows: Sequence[int], size: int) -> list[Batch]:
    """Split rows in order into batches of `size`; the last batch may be smaller."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def token_batches(lengths: Sequence[int], rows: Sequence[int], tokens: int) -> list[Batch]:
    """Group rows of similar length into batches of at most `tokens` tokens with padding; longer rows stay alone."""
    batches: list[Batch] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
