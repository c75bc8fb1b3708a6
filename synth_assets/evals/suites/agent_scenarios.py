"""Verifiable conversations that test planning, memory, corrections, tool calls and format."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from synth_assets.evals.constraints import json_of, lines, mentions, numbers_of_list, words
from synth_assets.evals.suite import Item, Suite, replies_of

NAME = "agent_scenarios"
MIN_STEP_WORDS = 3  # exclusive
MAX_ANSWER_WORDS = 12  # the prompt asks for one word: accept a sentence, not a repetition of the conversation

PLANS = (
    ("move an office to another floor", "computers", 4),
    ("organise a school concert", "tickets", 5),
    ("repaint a bathroom", "brush", 4),
    ("publish a monthly newsletter", "subscribers", 5),
    ("train a new cashier", "receipts", 3),
    ("prepare a camping trip", "tent", 5),
    ("introduce a password manager in a company", "training", 6),
    ("start a vegetable garden", "seeds", 4),
    ("hold a charity run", "volunteers", 6),
    ("replace a shop's old till", "data", 5),
)
FACTS = (
    ("My name is Ilse and I am allergic to walnuts.", "Which food must I avoid? One word.", "walnuts"),
    ("Our budget for the party is 340 euros.", "How much may we spend? Give the number.", "340"),
    ("The meeting room is called Heron.", "In which room do we meet? One word.", "Heron"),
    ("My train leaves from platform 9.", "Which platform do I need? Give the number.", "9"),
    ("Our dog is called Biscuit.", "What is my dog called? One word.", "Biscuit"),
    ("The spare key lies under the blue flowerpot.", "Under which colour of flowerpot is the key? One word.", "blue"),
    ("My project is due on Thursday.", "On which day is my project due? One word.", "Thursday"),
    ("I work as a beekeeper.", "What is my job? One word.", "beekeeper"),
    ("The order number is 7715.", "What is the order number?", "7715"),
    ("My sister lives in Tallinn.", "In which city does my sister live? One word.", "Tallinn"),
)
ASIDES = (
    "Name three colours of autumn leaves.",
    "What is a synonym of the word quick?",
    "Say something kind about libraries.",
)
CORRECTIONS = (
    ("a meeting on Tuesday", "Tuesday", "Friday", "day"),
    ("a table for four people", "four", "six", "number of people"),
    ("a taxi to the museum", "museum", "harbour", "destination"),
    ("a cake with cherries", "cherries", "lemons", "fruit"),
    ("a parcel to Oslo", "Oslo", "Bergen", "city"),
    ("a call with Marta", "Marta", "Henrik", "person"),
    ("a room with one bed", "one", "two", "number of beds"),
    ("a reminder for noon", "noon", "midnight", "time"),
    ("a shirt in green", "green", "grey", "colour"),
    ("a course in Spanish", "Spanish", "Finnish", "language"),
)
TOOLS = (
    {"name": "weather", "arguments": {"city": "name of a city", "days": "number of days ahead"}},
    {"name": "convert", "arguments": {"amount": "a number", "source": "currency code", "target": "currency code"}},
    {"name": "timer", "arguments": {"minutes": "a number"}},
    {"name": "translate", "arguments": {"text": "what to translate", "language": "into which language"}},
)
CALLS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("What will the weather be in Lima in 3 days?", "weather", {"city": "Lima", "days": 3}),
    ("Will it rain in Cork tomorrow?", "weather", {"city": "Cork", "days": 1}),
    ("How will the weather be in Pune in 5 days?", "weather", {"city": "Pune", "days": 5}),
    ("How many JPY are 20 EUR?", "convert", {"amount": 20, "source": "EUR", "target": "JPY"}),
    ("Change 75 USD into CHF.", "convert", {"amount": 75, "source": "USD", "target": "CHF"}),
    ("I have 900 SEK. How much is that in GBP?", "convert", {"amount": 900, "source": "SEK", "target": "GBP"}),
    ("Wake me in 25 minutes.", "timer", {"minutes": 25}),
    ("My eggs need 7 minutes, tell me when they are done.", "timer", {"minutes": 7}),
    ("What is good morning in Italian?", "translate", {"text": "good morning", "language": "Italian"}),
    ("How do you say thank you in Welsh?", "translate", {"text": "thank you", "language": "Welsh"}),
)
FORMATS = (
    ("ANSWER:", "Which animal barks?", "Which animal purrs?"),
    ("Reply -", "What do cows drink?", "What do bees make?"),
    ("[bot]", "Which month follows May?", "Which month follows June?"),
    ("Note:", "What melts in the sun?", "What falls in winter?"),
    (">>", "What opens a lock?", "What cuts paper?"),
    ("Fact:", "How many wheels has a car?", "How many wheels has a bicycle?"),
    ("Result:", "What is 2 plus 3?", "What is 4 plus 4?"),
    ("Hint:", "Where do fish live?", "Where do birds nest?"),
    ("A:", "Which colour has snow?", "Which colour has coal?"),
    ("Log:", "Who bakes bread?", "Who flies a plane?"),
)


def items(folder: Path | None = None) -> list[Item]:
    """Return ten scenarios per skill, all of them test items."""
    return [
        Item(
            item_id=f"{NAME}/{skill}/{number % 10}",
            suite=NAME,
            split="test",
            kind="generation",
            prompt="\n\n".join(user_turns),
            answer=json.dumps({"skill": skill, "turns": user_turns, "wanted": expected}, ensure_ascii=False),
            cluster=f"{NAME}/{skill}/{number % 10}",
        )
        for number, (skill, user_turns, expected) in enumerate(_scenarios())
    ]


def turns(item: Item) -> list[str]:
    """Return the user turns."""
    return json.loads(item.answer)["turns"]


def score(item: Item, response: str) -> dict[str, float | None]:
    """Return `solved`, and the metric of the scenario's skill."""
    scenario = json.loads(item.answer)
    solved = float(SKILLS[scenario["skill"]](replies_of(response, len(scenario["turns"])), scenario["wanted"]))
    return {"solved": solved, **{skill: solved if skill == scenario["skill"] else None for skill in SKILLS}}


def _plans_steps(replies: list[str], expected: Mapping[str, Any]) -> bool:
    """Return whether the plan has the right number of numbered steps and one step mentions the required word."""
    last = replies[-1]
    steps = [line for line in lines(last) if numbers_of_list(line)]
    numbered = numbers_of_list(last) == list(range(1, expected["steps"] + 1))
    return (
        numbered and all(len(words(s)) > MIN_STEP_WORDS for s in steps) and mentions("\n".join(steps), expected["word"])
    )


def _remembers(replies: list[str], expected: Mapping[str, Any]) -> bool:
    """Return whether a short answer has the fact of two turns ago."""
    return mentions(replies[-1], expected["fact"]) and len(words(replies[-1])) <= MAX_ANSWER_WORDS


def _obeys_correction(replies: list[str], expected: Mapping[str, Any]) -> bool:
    """Return whether the answer has the corrected value and not the original one."""
    return mentions(replies[-1], expected["after"]) and not mentions(replies[-1], expected["before"])


def _calls_tool(replies: list[str], expected: Mapping[str, Any]) -> bool:
    """Return whether the reply is a JSON tool call with the right arguments, ignoring case and number formatting."""
    call = json_of(replies[-1].strip())
    if not isinstance(call, dict) or not isinstance(arguments := call.get("arguments"), dict):
        return False
    actual = {str(name): str(value).strip().casefold() for name, value in arguments.items()}
    normalised = {name: str(value).casefold() for name, value in expected["arguments"].items()}
    return call.keys() == {"tool", "arguments"} and call["tool"] == expected["tool"] and actual == normalised


def _keeps_format(replies: list[str], expected: Mapping[str, Any]) -> bool:
    """Return whether each reply after the first is one line with the agreed prefix and some text after it."""
    start = expected["start"]
    return all(
        len(lines(reply)) == 1 and reply.strip().startswith(start) and bool(words(reply.strip()[len(start) :]))
        for reply in replies[1:]
    )


SKILLS: Mapping[str, Callable[[list[str], Mapping[str, Any]], bool]] = {
    "plan": _plans_steps,
    "memory": _remembers,
    "correction": _obeys_correction,
    "tool": _calls_tool,
    "format": _keeps_format,
}


def _scenarios() -> Iterator[tuple[str, list[str], Mapping[str, Any]]]:
    """Yield the skill, the user turns, and the values that the skill's verifier expects."""
    for goal, word, steps in PLANS:
        request = f"Now write the plan as a numbered list of exactly {steps} steps. One step must mention {word}."
        yield (
            "plan",
            [f"I want to {goal}. Do not plan yet: ask me one question.", request],
            {"steps": steps, "word": word},
        )
    for number, (fact, question, answer) in enumerate(FACTS):
        user_turns = [f"{fact} Please remember it.", ASIDES[number % len(ASIDES)], question]
        yield "memory", user_turns, {"fact": answer}
    for booking, before, after, subject in CORRECTIONS:
        user_turns = [f"Please note: I need {booking}.", f"A correction: not {before} but {after}."]
        yield (
            "correction",
            [*user_turns, f"Which {subject} did we agree on? One word."],
            {"before": before, "after": after},
        )
    for question, tool, arguments in CALLS:
        introduction = f"You can call these tools: {json.dumps(TOOLS)}. Understood?"
        form = 'Reply with nothing but JSON: {"tool": name, "arguments": {...}}.'
        yield "tool", [introduction, f"{question} {form}"], {"tool": tool, "arguments": arguments}
    for start, first, second in FORMATS:
        rule = f'From now on each of your replies is one line that begins with "{start}". Do you agree?'
        yield "format", [rule, first, second], {"start": start}


SUITE = Suite(name=NAME, kind="generation", metrics=("solved", *SKILLS), items=items, score=score, turns=turns)
