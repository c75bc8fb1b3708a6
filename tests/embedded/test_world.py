import os
import subprocess
import sys
from random import Random

import pytest

from synth_assets.embedded.answers import flawed_answer, flaws_of, good_answer
from synth_assets.embedded.corpus import GROUP_WEIGHTS
from synth_assets.embedded.task import CONSTRAINTS, LIST_STYLES, key_of
from synth_assets.embedded.verifier import quality, verify
from synth_assets.embedded.world import SPLITS, catalogue, find, split_of, tasks


def test_no_key_stands_in_two_splits() -> None:
    keys = {split: {task.key for task in tasks(split)} for split in SPLITS}
    assert not keys["train"] & keys["validation"]
    assert not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]
    assert sum(len(tasks(split)) for split in SPLITS) == len(catalogue())


def test_a_key_is_the_instruction_without_its_constraint() -> None:
    suffixes = [suffix for suffix in (*CONSTRAINTS.values(), *LIST_STYLES.values()) if suffix]
    for task in catalogue().values():
        assert key_of(task.instruction) == task.key
        assert not any(task.key.endswith(suffix) for suffix in suffixes)


def test_a_constraint_does_not_change_the_split() -> None:
    plain = find("What is the capital of France?")
    quoted = find("What is the capital of France? Put the answer in quotes.")
    assert plain is not None
    assert quoted is not None
    assert split_of(plain.key) == split_of(quoted.key)


def test_every_good_answer_is_strictly_right() -> None:
    random = Random(0)
    for task in catalogue().values():
        answer = good_answer(task, random)
        assert quality(task, answer) == 2, (task.instruction, answer)


def test_no_flawed_answer_is_strictly_right() -> None:
    random = Random(0)
    for task in catalogue().values():
        for flaw in flaws_of(task):
            answer = flawed_answer(task, random, flaw)
            assert not verify(task, answer).strict, (task.instruction, flaw, answer)


def test_a_flaw_that_a_task_cannot_have_is_refused() -> None:
    task = find("Hello!")
    assert task is not None
    with pytest.raises(ValueError, match="cannot have the flaw 'comply', only ramble"):
        flawed_answer(task, Random(0), "comply")


def test_answers_are_sentences_of_three_words_or_more_except_lists() -> None:
    random = Random(0)
    short = [
        task.instruction
        for task in catalogue().values()
        if task.category != "list" and len(good_answer(task, random).split()) < 3
    ]
    assert short == []


def test_no_wrong_value_is_the_right_one() -> None:
    for task in catalogue().values():
        assert task.value not in task.wrong_values
        assert not task.myth or task.myth in task.wrong_values


def test_every_group_has_a_weight_in_the_corpus() -> None:
    assert {task.group for task in catalogue().values()} == set(GROUP_WEIGHTS)


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="no split 'dev'; there are train, validation, test"):
        tasks("dev")


PROBE = """
import hashlib, sys
from random import Random
from synth_assets.embedded import answers, corpus, items, verifier, world
digest = hashlib.sha256()
for split in world.SPLITS:
    for task in world.tasks(split):
        digest.update(repr(task).encode())
for split in ("validation", "test"):
    digest.update(repr(items.generation_items(split) + items.choice_items(split)).encode())
random = Random(0)
for _ in range(300):
    digest.update(repr((corpus.chat_example(random), corpus.raw_document(random))).encode())
    digest.update(answers.flawed_answer(corpus.draw_task(random), random).encode())
heavy = {"torch", "transformers", "peft"} & set(sys.modules)
print(digest.hexdigest(), sorted(heavy))
"""


def _probe(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_world_corpus_and_items_are_the_same_in_every_process_and_load_no_model_library() -> None:
    first = _probe("1")
    assert first == _probe("2")
    assert first.strip().endswith("[]")
