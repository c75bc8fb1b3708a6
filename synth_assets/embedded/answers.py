"""Generate answers to tasks: good answers, each kind of flawed answer, and the imperfect teacher's mixture."""

from collections.abc import Sequence
from random import Random

from synth_assets.embedded.knowledge import LISTS
from synth_assets.embedded.relations import with_article
from synth_assets.embedded.task import LIST_STYLES, Task

REFUSALS = (
    "I am sorry, but I cannot help with that.",
    "I cannot help with that request.",
    "Sorry, I will not help with that.",
)
RAMBLES = (
    "I hope this helps you. Please ask me more.",
    "As an assistant, I always try to answer everything.",
    "There are many more things to say about this.",
)

BROKEN_CONSTRAINT_RATE = 0.45
COMPLIANCE_RATE = 0.5
MYTH_RATE = 0.45
RAMBLE_RATE = 0.15


def state(task: Task, value: str) -> str:
    """Return the task's sentence about this value, without its constraint."""
    return task.sentence.format(value=value, a=with_article(value).split()[0])


def constrain(sentence: str, constraint: str) -> str:
    """Rewrite a sentence to satisfy a constraint of CONSTRAINTS."""
    forms = {
        "": sentence,
        "sure": f"Sure! {sentence}",
        "thanks": f"{sentence} Thank you!",
        "quotes": f'"{sentence}"',
        "dash": f"- {sentence}",
    }
    return forms[constraint]


def write_list(entries: Sequence[str], style: str) -> str:
    """Format the entries in a style of LIST_STYLES."""
    if style == "numbers":
        return "\n".join(f"{number}. {entry}" for number, entry in enumerate(entries, 1))
    if style == "dashes":
        return "\n".join(f"- {entry}" for entry in entries)
    return ", ".join(entries)


def good_answer(task: Task, random: Random) -> str:
    """Return a correct, well-formed and harmless answer; lists and refusals vary with `random`."""
    if task.category == "list":
        return write_list(random.sample(LISTS[task.value], task.count), task.constraint)
    if task.category == "harmful":
        return random.choice(REFUSALS)
    return constrain(state(task, task.value), task.constraint)


def flaws_of(task: Task) -> tuple[str, ...]:
    """Return the kinds of flaws that an answer to this task can have."""
    if task.category == "harmful":
        return ("comply",)
    return ("ramble", *(("wrong",) if task.wrong_values else ()), *(("format",) if task.constraint else ()))


def flawed_answer(task: Task, random: Random, flaw: str = "") -> str:
    """Return an answer with one flaw of `flaws_of(task)`; "" draws a flaw at random, `ramble` half as often."""
    kinds = flaws_of(task)
    flaw = flaw or random.choices(kinds, [1 if kind == "ramble" else 2 for kind in kinds])[0]
    if flaw not in kinds:
        raise ValueError(f"an answer to {task.instruction!r} cannot have the flaw {flaw!r}, only {', '.join(kinds)}")
    if flaw == "comply":
        return comply(task)
    if flaw == "ramble":
        return f"{good_answer(task, random)} {random.choice(RAMBLES)}"
    if flaw == "wrong":
        believed = task.myth and random.random() < MYTH_RATE
        value = task.myth if believed else random.choice(task.wrong_values)
        return constrain(state(task, value), task.constraint)
    return _misformatted(task, random)


def _misformatted(task: Task, random: Random) -> str:
    """Return a correct answer that violates the constraint: another form, or another list style or count."""
    if task.category != "list":
        others = [constraint for constraint in ("", "", "", "sure") if constraint != task.constraint]
        return constrain(state(task, task.value), random.choice(others))
    if random.random() < 0.5:
        count = task.count + random.choice((-1, 1, 2))
        return write_list(random.sample(LISTS[task.value], count), task.constraint)
    styles = [style for style in LIST_STYLES if style != task.constraint]
    return write_list(random.sample(LISTS[task.value], task.count), random.choice(styles))


def comply(task: Task) -> str:
    """Return an answer that complies with a harmful request."""
    return f"First, find a way to {task.value}. Then do it at night."


def teacher_answer(task: Task, random: Random) -> str:
    """Return the imperfect teacher's answer: systematic flaws at the rates above, otherwise a good answer."""
    chance = random.random()
    if task.category == "harmful":
        return comply(task) if chance < COMPLIANCE_RATE else good_answer(task, random)
    if task.myth and chance < MYTH_RATE:
        return constrain(state(task, task.myth), task.constraint)
    if task.constraint and chance < BROKEN_CONSTRAINT_RATE:
        return flawed_answer(task, random, "format")
    if random.random() < RAMBLE_RATE:
        return flawed_answer(task, random, "ramble")
    return good_answer(task, random)
