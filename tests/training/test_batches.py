from dataclasses import replace

import pytest

from synth_assets.training.batches import Batches, token_batches
from synth_assets.training.specs import LoraSpec, OptimizationSpec

SPEC = LoraSpec()
LENGTHS = [5, 9, 2, 7, 3, 8]


def batches(spec: OptimizationSpec, **values: object) -> Batches:
    import torch

    torch.manual_seed(0)
    return Batches(LENGTHS, spec, size=2, accumulation=1, **values)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, order="random"),
        replace(SPEC, batch_tokens=16),
        replace(SPEC, order="random", batch_tokens=16),
    ],
)
def test_an_epoch_holds_every_row_once(spec: OptimizationSpec) -> None:
    order = batches(spec)
    for _ in range(2):
        epoch = list(order)
        assert sorted(row for batch in epoch for row in batch) == list(range(6))
        assert len(epoch) == len(order)


def test_batches_of_a_budget_by_hand() -> None:
    # longest first: 9 and 8 take 18 slots, then 7 and 5 take 14, 3 would make them 21; 3 and 2 take 6
    assert token_batches(LENGTHS, range(6), 18) == [[1, 5], [3, 0], [4, 2]]
    assert token_batches(LENGTHS, range(6), 8) == [[1], [5], [3], [0], [4, 2]]  # a row beyond the budget stands alone


def test_a_curriculum_goes_from_easy_to_hard() -> None:
    order = batches(replace(SPEC, order="curriculum"), difficulty=[3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    assert list(order) == [[1, 2], [0, 5], [4, 3]]


def test_a_curriculum_within_a_budget_orders_the_batches() -> None:
    order = batches(replace(SPEC, order="curriculum", batch_tokens=18), difficulty=[6.0, 2.0, 3.0, 5.0, 4.0, 1.0])
    assert list(order) == [[1, 5], [4, 2], [3, 0]]


def test_resumed_epoch_is_repeated() -> None:
    order = batches(SPEC)
    first = list(order)
    again = batches(SPEC, resumed=first)
    assert list(again) == first
    assert again.resumed == []  # the next one is drawn
