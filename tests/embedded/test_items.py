import pytest

from synth_assets.embedded.answers import state
from synth_assets.embedded.items import CHOICES, choice_items, generation_items
from synth_assets.embedded.verifier import verify
from synth_assets.embedded.world import find, split_of


@pytest.mark.parametrize("split", ["validation", "test"])
def test_generation_items_are_held_out_known_and_unique(split: str) -> None:
    items = generation_items(split)
    assert 600 <= len(items) <= 700
    assert len({item.instruction for item in items}) == len(items)
    for item in items:
        task = find(item.instruction)
        assert task is not None
        assert (item.key, item.group) == (task.key, task.group)
        assert split_of(item.key) == split


def test_lower_limit_returns_a_prefix() -> None:
    assert generation_items("validation", limit=50) == generation_items("validation")[:50]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_choice_items_have_one_right_answer(split: str) -> None:
    items = choice_items(split)
    assert len(items) >= 300
    for item in items:
        task = find(item.question)
        assert task is not None
        assert split_of(item.key) == split
        assert len(set(item.choices)) == CHOICES
        right = [verify(task, choice).strict for choice in item.choices]
        assert right == [index == item.answer for index in range(CHOICES)]
        assert not task.myth or state(task, task.myth) in item.choices


def test_correct_choices_are_evenly_distributed() -> None:
    answers = [item.answer for split in ("validation", "test") for item in choice_items(split)]
    shares = [answers.count(place) / len(answers) for place in range(CHOICES)]
    # four standard errors around 1/4 at n = 600: 4 * sqrt(.25 * .75 / 600) = .07
    assert all(0.18 < share < 0.32 for share in shares)


def test_train_split_has_no_benchmark_items() -> None:
    with pytest.raises(ValueError, match="no benchmark split 'train'; there are validation, test"):
        generation_items("train")
