"""A training shows answers to validation prompts while it goes, and trains to the same weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.storage.manifests import folder_hash
from synth_assets.training.callbacks import Unobserved
from synth_assets.training.data import Example
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.live_answers import LiveAnswers
from synth_assets.training.sft import train_lora
from tests.training.conftest import QUICK_LORA

pytestmark = pytest.mark.integration


class Watching(Unobserved):
    """Observer that wants answers a number of times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.seen: list[tuple[int, Sequence[Mapping[str, str]]]] = []

    def wants_answers(self) -> bool:
        return len(self.seen) < self.times

    def answered(self, step: int, answers: Sequence[Mapping[str, str]]) -> None:
        self.seen.append((step, answers))


def test_answers_of_each_validation_leave_the_weights_as_they_are(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup, lora_folder: Path, tmp_path: Path
) -> None:
    observer = Watching(2)
    trained = train_lora(load(), rows, QUICK_LORA, replace(setup, observer=observer))
    assert [step for step, _ in observer.seen] == [4, 8]  # 28 rows in batches of 8, two epochs
    validation = rows.filter(split="validation")
    _, answers = observer.seen[-1]
    assert [answer["reference"] for answer in answers] == validation["response"].to_list()
    for answer, question in zip(answers, validation["instruction"], strict=True):
        assert question in answer["prompt"]
        assert answer["answer"]
    trained.save(tmp_path)
    assert folder_hash(tmp_path) == folder_hash(lora_folder)


def test_no_answers_are_written_unless_they_are_wanted(load: Callable[[], LoadedBase]) -> None:
    model, tokenizer = load()
    unasked = Watching(0)
    LiveAnswers([Example([1], [2])], unasked).write(1, model, tokenizer)  # pyright: ignore[reportArgumentType]
    without_rows = Watching(1)
    LiveAnswers([], without_rows).write(1, model, tokenizer)  # pyright: ignore[reportArgumentType]
    assert (unasked.seen, without_rows.seen) == ([], [])
