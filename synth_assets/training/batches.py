"""Which rows stand together in a batch, and in which order the batches come."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from synth_assets.training.specs import OptimizationSpec

Batch = list[int]


@dataclass
class Batches:
    """A batch sampler: row numbers, one epoch for each iteration.

    Randomness comes from torch's global generator when an epoch begins. `epoch` is the order of the epoch begun last; a
    training that resumes inside one puts it into `resumed`, and the next iteration repeats it.

    Args:
        lengths: tokens of each row.
        spec: its order, and its token budget.
        size: rows in a batch, where no token budget decides.
        accumulation: batches of one step; rows of one step are alike in length.
        difficulty: of each row, for the curriculum.
    """

    lengths: Sequence[int]
    spec: OptimizationSpec
    size: int
    accumulation: int
    difficulty: Sequence[float] = ()
    epoch: list[Batch] = field(default_factory=list)
    resumed: list[Batch] = field(default_factory=list)

    drop_last = False  # read by accelerate, as is batch_size

    @property
    def batch_size(self) -> int:
        """Rows of the largest batch."""
        return self.size

    def __len__(self) -> int:
        """Batches of every epoch."""
        if self.spec.batch_tokens:
            return len(budgeted(self.lengths, range(len(self.lengths)), self.spec.batch_tokens))
        return math.ceil(len(self.lengths) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch."""
        self.epoch, self.resumed = self.resumed or self._drawn(), []
        yield from self.epoch

    def _drawn(self) -> list[Batch]:
        import torch

        rows = len(self.lengths)
        if self.spec.order == "curriculum":
            shuffled = torch.randperm(rows).tolist()  # ties in random order
            rank = sorted(shuffled, key=lambda row: self.difficulty[row])
        elif self.spec.order == "random":
            rank = torch.randperm(rows).tolist()
        else:
            return self._grouped()
        if self.spec.batch_tokens:
            return self._budgeted_like(rank)
        return in_batches(rank, self.size)

    def _grouped(self) -> list[Batch]:
        """Rows of like length together, as transformers groups them; within a budget, batches in random order."""
        import torch
        from transformers.trainer_pt_utils import get_length_grouped_indices

        if self.spec.batch_tokens:
            batches = budgeted(self.lengths, range(len(self.lengths)), self.spec.batch_tokens)
            return [batches[number] for number in torch.randperm(len(batches)).tolist()]
        order = get_length_grouped_indices(self.lengths, self.size * self.accumulation)
        return in_batches(order, self.size)

    def _budgeted_like(self, rank: Sequence[int]) -> list[Batch]:
        """The batches of the budget, in the order of the mean position of their rows in `rank`."""
        position = {row: place for place, row in enumerate(rank)}
        batches = budgeted(self.lengths, range(len(self.lengths)), self.spec.batch_tokens or 0)
        return sorted(batches, key=lambda batch: sum(position[row] for row in batch) / len(batch))


def in_batches(rows: Sequence[int], size: int) -> list[Batch]:
    """Rows in order, `size` at a time; the last batch may be smaller."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def budgeted(lengths: Sequence[int], rows: Sequence[int], tokens: int) -> list[Batch]:
    """Batches of like length, each of at most `tokens` slots once padded; a longer row stands alone."""
    batches: list[Batch] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
