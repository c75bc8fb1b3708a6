"""Questions with constraints on the form of the answer, each verified by a program; written for this project."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

from synth_assets.evals.constraints import asks, holds, mentions, words
from synth_assets.evals.suite import SEALED, Item, Split, Suite

NAME = "instruction_following"
COMBINATIONS = 12  # of constraints, for each topic
LEAST_WORDS = 3  # of an answer that says anything
FIRST_WORDS = ("Usually", "First", "Mostly", "Sometimes")
LAST_WORDS = ("indeed", "today", "everywhere", "again")
KEYS = (("answer", "reason"), ("summary", "example"), ("claim", "evidence", "source"))

TOPICS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    # question; words of which an answer uses one; a word to ask for; a word to forbid
    ("Why do leaves change colour in autumn?", ("leaf", "leaves"), "sunlight", "green"),
    ("How does a bicycle stay upright?", ("bicycle", "bike", "wheel", "wheels"), "balance", "speed"),
    ("Why does bread rise?", ("bread", "dough", "yeast"), "warm", "gas"),
    ("What makes a good neighbour?", ("neighbour", "neighbours", "neighbor"), "quiet", "friendly"),
    ("How do bees find flowers?", ("bee", "bees"), "colour", "smell"),
    ("Why do we have leap years?", ("year", "years"), "calendar", "February"),
    ("How does a refrigerator keep food cold?", ("refrigerator", "fridge", "food"), "heat", "cool"),
    ("Why is sleep important?", ("sleep", "sleeping"), "memory", "rest"),
    ("How do plants drink water?", ("plant", "plants", "root", "roots"), "soil", "leaves"),
    ("What should a beginner know about chess?", ("chess",), "king", "win"),
    ("How can a family save electricity at home?", ("electricity", "power", "energy"), "lamp", "money"),
    ("Why do cats purr?", ("cat", "cats"), "calm", "happy"),
    ("How is paper made?", ("paper",), "wood", "tree"),
    ("Why do ships float?", ("ship", "ships"), "water", "steel"),
    ("What is a budget good for?", ("budget",), "month", "money"),
    ("How do vaccines protect people?", ("vaccine", "vaccines"), "immune", "disease"),
    ("Why does the Moon change its shape during a month?", ("moon",), "Earth", "shadow"),
    ("How do you prepare for a job interview?", ("interview",), "questions", "nervous"),
    ("Why do people learn foreign languages?", ("language", "languages"), "travel", "culture"),
    ("How does a library work?", ("library",), "borrow", "free"),
    ("What happens when water boils?", ("water",), "steam", "hot"),
    ("Why are bridges built with arches?", ("bridge", "bridges", "arch", "arches"), "weight", "strong"),
    ("How do you plant a tree?", ("tree",), "hole", "soil"),
    ("Why do we wash our hands?", ("hand", "hands"), "soap", "clean"),
    ("How do submarines dive?", ("submarine", "submarines"), "tanks", "deep"),
    ("What is the use of a compass?", ("compass",), "north", "lost"),
    ("Why do birds migrate?", ("bird", "birds"), "winter", "south"),
    ("How does a traffic light help a town?", ("traffic", "light", "lights"), "cars", "safe"),
    ("What makes a story exciting?", ("story", "stories"), "danger", "hero"),
    ("How do you keep a garden healthy in a dry summer?", ("garden",), "shade", "water"),
    ("Why does ice float on a lake?", ("ice",), "lake", "cold"),
    ("How do you make a cup of tea?", ("tea",), "kettle", "hot"),
    ("Why do we keep backups of our files?", ("backup", "backups", "file", "files"), "disk", "lose"),
    ("How does a candle burn?", ("candle", "wax"), "wick", "fire"),
    ("What is good about walking to work?", ("walk", "walking"), "health", "cheap"),
    ("Why do metals feel cold?", ("metal", "metals"), "heat", "touch"),
    ("How do you settle a quarrel between friends?", ("friend", "friends", "quarrel"), "listen", "sorry"),
    ("Why does the sea taste of salt?", ("sea", "salt"), "rivers", "water"),
    ("How are mountains formed?", ("mountain", "mountains"), "plates", "rock"),
    ("What does a treasurer of a club do?", ("treasurer",), "members", "money"),
    ("Why do onions make us cry?", ("onion", "onions"), "eyes", "knife"),
    ("How do you read a map?", ("map",), "scale", "north"),
    ("Why is recycling glass useful?", ("glass",), "furnace", "waste"),
    ("How do musicians tune a guitar?", ("guitar", "string", "strings"), "ear", "sound"),
    ("Why do deserts get cold at night?", ("desert", "deserts"), "clouds", "sand"),
    ("What should be in a first aid kit?", ("kit", "bandage", "bandages"), "scissors", "plaster"),
    ("How does a zip fastener work?", ("zip", "teeth"), "slider", "close"),
    ("Why do we celebrate birthdays?", ("birthday", "birthdays"), "family", "cake"),
    ("How do spiders build webs?", ("spider", "spiders", "web", "webs"), "silk", "fly"),
    ("What is a good way to learn new words?", ("word", "words"), "repeat", "list"),
    ("Why does a kettle whistle?", ("kettle",), "steam", "loud"),
    ("How do lighthouses help sailors?", ("lighthouse", "lighthouses"), "rocks", "night"),
    ("Why should a text be read again before it is sent?", ("text", "read"), "mistakes", "error"),
    ("How does rain form?", ("rain",), "drops", "clouds"),
    ("What makes a chair comfortable?", ("chair",), "back", "soft"),
    ("Why do teams write down decisions?", ("team", "teams", "decision", "decisions"), "later", "forget"),
    ("How do you look after a pair of leather shoes?", ("shoe", "shoes", "leather"), "brush", "wet"),
    ("Why do clocks have two hands?", ("clock", "clocks", "hand", "hands"), "minutes", "time"),
    ("How is cheese made?", ("cheese", "milk"), "salt", "cow"),
    ("What can a town do for its cyclists?", ("cyclist", "cyclists", "bicycle", "bicycles"), "lanes", "cars"),
)


def items(folder: Path | None = None) -> list[Item]:
    """Twelve items a topic; a topic is in one split only, and a cluster."""
    found = []
    for number, (question, about, wanted, forbidden) in enumerate(TOPICS):
        split = _split(number)
        for combination, constraints in enumerate(_combinations(question, wanted, forbidden)):
            asked = " ".join(asks(kind, value) for kind, value in constraints)
            found.append(
                Item(
                    item_id=f"{NAME}/{split}/{number:02}-{combination:02}",
                    suite=NAME,
                    split=split,
                    kind="generation",
                    prompt=f"{question} {asked}",
                    answer=json.dumps({"about": about, "constraints": constraints}),
                    cluster=f"{NAME}/{number:02}",
                )
            )
    return found


def score(item: Item, response: str) -> dict[str, float | None]:
    """`followed`: every constraint holds; `constraints`: the share that holds; nothing for an answer beside the point.

    An answer is to the point if it has three words, one of them of the topic, and does not repeat the question.
    """
    asked = json.loads(item.answer)
    said, question = words(response), words(item.prompt.partition("?")[0])
    to_the_point = (
        len(said) >= LEAST_WORDS
        and bool(set(said) & set(asked["about"]))
        and not mentions(response, " ".join(question))
    )
    held = [to_the_point and holds(response, kind, value) for kind, value in asked["constraints"]]
    return {"followed": float(all(held)), "constraints": sum(held) / len(held)}


def _split(number: int) -> Split:
    """Of four topics two are test, one validation, one sealed."""
    return ("test", "validation", "test", SEALED)[number % 4]


def _combinations(question: str, wanted: str, forbidden: str) -> list[list[tuple[str, Any]]]:
    """Sets of one to three constraints that an answer can meet together, drawn by the question's hash."""
    random = Random(int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big"))  # noqa: S311 - a draw, no secret
    found: list[list[tuple[str, Any]]] = []
    while len(found) < COMBINATIONS:
        form = _form(len(found), random)
        chosen = [form, *_wording(form[0], wanted, forbidden, random)][: 1 + len(found) % 3]
        if chosen not in found:
            found.append(chosen)
    return found


def _form(number: int, random: Random) -> tuple[str, Any]:
    few = random.randint(2, 5)
    forms: tuple[tuple[str, Any], ...] = (
        ("lines", few),
        ("sentences", few),
        ("one_sentence", None),
        ("numbered_list", few),
        ("bulleted_list", few),
        ("json_keys", list(random.choice(KEYS))),
        ("words_at_most", 10 * few),
        ("words_at_least", 30 * few),
        ("paragraphs", few),
        ("items", few),
        ("first_word", random.choice(FIRST_WORDS)),
        ("last_word", random.choice(LAST_WORDS)),
    )
    return forms[number % len(forms)]


def _wording(form: str, wanted: str, forbidden: str, random: Random) -> list[tuple[str, Any]]:
    """Two constraints that any form leaves room for; a JSON object needs its commas and the case of its keys."""
    vocabulary = [("keyword", wanted), ("no_keyword", forbidden)]
    surface = [] if form == "json_keys" else [("uppercase", None), ("lowercase", None), ("no_commas", None)]
    chosen = [random.choice(vocabulary), random.choice(surface or vocabulary)]
    random.shuffle(chosen)
    return list(dict.fromkeys(chosen))


SUITE = Suite(name=NAME, kind="generation", metrics=("followed", "constraints"), items=items, score=score)
