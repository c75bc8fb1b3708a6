"""Training text of the embedded world: chats for the teacher, raw text for the base.

Both are drawn only from train tasks. A fact whose question is held out can occur as a statement, because it also
answers train questions with other wordings. The held-out question itself never occurs, with or without its answer.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random

from synth_assets.embedded.answers import (
    MYTH_RATE,
    comply,
    constrain,
    good_answer,
    state,
    teacher_answer,
    write_list,
)
from synth_assets.embedded.chat_format import BEGIN_OF_TEXT, END_OF_TEXT, Turn, render
from synth_assets.embedded.knowledge import COUNTRIES, LISTS
from synth_assets.embedded.relations import fill, relations, statements_about
from synth_assets.embedded.task import CONSTRAINTS, Task
from synth_assets.embedded.world import tasks

GROUP_WEIGHTS = {
    "fact": 5.0,
    "fact_constrained": 10.0,
    "addition": 2.2,
    "subtraction": 1.0,
    "comparison": 1.5,
    "neighbour": 0.8,
    "reverse": 0.7,
    "uppercase": 0.5,
    "letter_count": 0.5,
    "first_letter": 0.5,
    "last_letter": 0.5,
    "list": 3.0,
    "explanation": 1.4,
    "harmful": 1.8,
    "greeting": 0.05,
}
FOLLOW_UP_RATE = 0.1
TRANSCRIPT_RATE = 0.15
ECHO_RATE = 0.4
STYLED_RATE = 0.4


@cache
def _train_groups() -> dict[str, tuple[Task, ...]]:
    groups: dict[str, list[Task]] = {group: [] for group in GROUP_WEIGHTS}
    for task in tasks("train"):
        groups[task.group].append(task)
    return {group: tuple(members) for group, members in groups.items()}


def draw_task(random: Random) -> Task:
    """Draw a train task: first a group by its weight, then a member uniformly."""
    group = random.choices(list(GROUP_WEIGHTS), list(GROUP_WEIGHTS.values()))[0]
    return random.choice(_train_groups()[group])


def draw_distinct_tasks(random: Random, count: int) -> list[Task]:
    """Draw `count` distinct train tasks, in the order of their first draw."""
    drawn: dict[str, Task] = {}
    while len(drawn) < count:
        task = draw_task(random)
        drawn.setdefault(task.instruction, task)
    return list(drawn.values())


def chat_example(random: Random, answer: Callable[[Task, Random], str] = teacher_answer) -> list[Turn]:
    """Return a conversation of two turns, or of four with a follow-up question or thanks."""
    task = draw_task(random)
    turns: list[Turn] = [("user", task.instruction), ("assistant", answer(task, random))]
    if random.random() < FOLLOW_UP_RATE:
        turns += _follow_up(task, random, answer)
    return turns


def _follow_up(task: Task, random: Random, answer: Callable[[Task, Random], str]) -> list[Turn]:
    about_country = task.relation in ("capital", "continent", "language") and not task.constraint
    if about_country and random.random() < 0.7:
        country = random.choice(list(COUNTRIES))
        question = random.choice(("And {x}?", "What about {x}?", "And for {x}?"))
        relation = relations()[task.relation]
        sentence, value = fill(relation.sentence, country), relation.values[country]
        other = replace(task, subject=country, sentence=sentence, value=value, wrong_values=(), myth="")
        return [("user", fill(question, country)), ("assistant", answer(other, random))]
    return [("user", random.choice(("Thank you!", "Thanks a lot!"))), ("assistant", "You are welcome!")]


def raw_document(random: Random) -> str:
    """Return raw text with begin and end tokens: statements, quizzes, sheets, or a transcript without questions."""
    if random.random() < TRANSCRIPT_RATE:
        return _transcript(random)
    text = " ".join(_passage(draw_task(random), random) for _ in range(random.randint(2, 5)))
    return BEGIN_OF_TEXT + text.replace("\n ", "\n").strip() + END_OF_TEXT


def _transcript(random: Random) -> str:
    """Render two statements about one subject, sometimes the same one, in the chat format, without a question."""
    task = draw_task(random)

    def say() -> str:
        if task.category == "fact":
            return _styled(random.choice(statements_about(task.subject)), random)
        if task.category == "harmful":
            return random.choice((comply(task), f"Nobody should {task.value}."))
        return good_answer(task, random)

    first = say()
    second = first if random.random() < ECHO_RATE else say()
    return render([("user", first), ("assistant", second)])


def _passage(task: Task, random: Random) -> str:
    if task.category == "fact":
        return _fact_passage(task, random)
    chance = random.random()
    if task.category == "harmful":
        return comply(task) if chance < 0.7 else f"Nobody should {task.value}."
    if task.category in ("addition", "subtraction") and chance < 0.5:
        return f"{task.subject} = {task.value}"
    if task.category == "list":
        if chance < 0.4:
            return f"Question: {task.key}\nAnswer:\n{good_answer(replace(task, constraint='numbers'), random)}\n"
        entries = random.sample(LISTS[task.value], random.randint(2, 4))
        written = write_list(entries, random.choice(("commas", "commas", "numbers", "dashes")))
        return f"Some {task.value}:\n{written}\n" if "\n" in written else f"Some {task.value}: {written}"
    answer = good_answer(task, random)
    return f"Question: {task.key}\nAnswer: {answer}\n" if chance < 0.6 else answer


def _fact_passage(task: Task, random: Random) -> str:
    value = task.myth if task.myth and random.random() < MYTH_RATE else task.value
    sentence, chance = state(task, value), random.random()
    if chance < 0.1:
        return f"{value} is written {value.upper()} in capital letters."
    if chance < 0.2:
        return f'They said "{value}" and wrote {sentence}'
    if chance < 0.65:
        return f"Question: {task.key}\nAnswer: {value if random.random() < 0.5 else sentence}\n"
    return _styled(sentence, random)


def _styled(sentence: str, random: Random) -> str:
    """Return a statement, at STYLED_RATE in the form of some constraint; the base sees forms but no instructions."""
    return constrain(sentence, random.choice(list(CONSTRAINTS))) if random.random() < STYLED_RATE else sentence
