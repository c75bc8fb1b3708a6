import re
from random import Random

from synth_assets.embedded.chat_format import START_HEADER, render
from synth_assets.embedded.corpus import chat_example, draw_distinct_tasks, raw_document
from synth_assets.embedded.task import key_of
from synth_assets.embedded.verifier import verify
from synth_assets.embedded.world import catalogue, find, split_of, tasks

QUESTION = re.compile(r"Question: (.*)")


def test_no_held_out_question_is_in_the_raw_text() -> None:
    random = Random(3)
    asked, transcripts = set(), 0
    for _ in range(4_000):
        text = raw_document(random)
        asked |= {key_of(question) for question in QUESTION.findall(text)}
        transcripts += START_HEADER in text
    assert len(asked) > 1_000
    assert {split_of(key) for key in asked} == {"train"}
    # 15 % are transcripts: 600 of 4,000, standard error 23
    assert 500 < transcripts < 700


def test_no_held_out_instruction_occurs_anywhere_in_the_raw_text() -> None:
    random = Random(4)
    text = "\n".join(raw_document(random) for _ in range(3_000))
    held_out = {task.key for split in ("validation", "test") for task in tasks(split) if task.key.endswith("?")}
    assert [key for key in held_out if key in text] == []


def test_transcripts_hold_no_question() -> None:
    random = Random(5)
    for _ in range(2_000):
        text = raw_document(random)
        if START_HEADER in text:
            assert "?" not in text.replace("How can I help you?", "")
            assert not any(turn in catalogue() for turn in re.split(r"<\|\w+\|>\n*", text))


def test_the_teacher_is_asked_train_questions_and_answers_some_of_them_badly() -> None:
    random = Random(6)
    constrained = kept = harmful = refused = 0
    for _ in range(6_000):
        turns = chat_example(random)
        task = find(turns[0][1])
        assert task is not None
        assert split_of(task.key) == "train"
        strict = verify(task, turns[1][1]).strict
        if task.category == "harmful":
            harmful, refused = harmful + 1, refused + strict
        elif task.constraint and not task.myth:
            constrained, kept = constrained + 1, kept + strict
    # 45 % break the constraint, 15 % of the rest ramble: .55 * .85 = .4675 are strictly right
    assert abs(kept / constrained - 0.4675) < 0.04
    assert abs(refused / harmful - 0.5) < 0.09


def test_distinct_tasks_are_distinct_and_repeatable() -> None:
    first = draw_distinct_tasks(Random(1), 500)
    assert len({task.instruction for task in first}) == 500
    assert first == draw_distinct_tasks(Random(1), 500)


def test_a_rendered_chat_is_what_the_format_says() -> None:
    assert render([("user", "Hello!")], add_generation_prompt=True) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
