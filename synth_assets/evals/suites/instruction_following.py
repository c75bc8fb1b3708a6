"""Questions with verifiable constraints on the form of the answer; written for this project."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

from synth_assets.evals.constraints import holds, instruction, mentions, words
from synth_assets.evals.suite import SEALED, Item, Split, Suite

NAME = "instruction_following"
SIZES = (1, 2, 1, 1, 2, 1, 3, 1, 2, 1, 1, 2)  # constraints of the twelve items of a topic
MIN_WORDS = 3  # shorter answers count as empty
FIRST_WORDS = ("Usually", "First", "Mostly", "Sometimes")
LAST_WORDS = ("indeed", "today", "everywhere", "again")
ALONE = SIZES.count(1)
SURFACE: tuple[tuple[str, Any], ...] = (("uppercase", None), ("lowercase", None), ("no_commas", None))
KEYS = (("answer", "reason"), ("summary", "example"), ("claim", "evidence", "source"))

TOPICS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    # question; topic words, of which an answer uses one; required word; forbidden word
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
    """Return twelve items per topic. A topic is one cluster and belongs to one split."""
    rows = []
    for number, (question, topic_words, required, forbidden) in enumerate(TOPICS):
        split = _split(number)
        for combination, constraints in enumerate(_combinations(number, question, required, forbidden)):
            instructions = " ".join(instruction(kind, value) for kind, value in constraints)
            rows.append(
                Item(
                    item_id=f"{NAME}/{split}/{number:02}-{combination:02}",
                    suite=NAME,
                    split=split,
                    kind="generation",
                    prompt=f"{question} {instructions}",
                    answer=json.dumps({"about": topic_words, "constraints": constraints}),
                    cluster=f"{NAME}/{number:02}",
                )
            )
    return rows


def score(item: Item, response: str) -> dict[str, float | None]:
    """Return `followed`: 1 if every constraint holds, and `constraints`: the share that holds.

    Both are 0 for an answer that is off topic. An answer is on topic if it has at least three words, one of them of the
    topic, and does not repeat the question.
    """
    task = json.loads(item.answer)
    tokens, question = words(response), words(item.prompt.partition("?")[0])
    on_topic = (
        len(tokens) >= MIN_WORDS
        and bool(set(tokens) & set(task["about"]))
        and not mentions(response, " ".join(question))
    )
    satisfied = [on_topic and holds(response, kind, value) for kind, value in task["constraints"]]
    return {"followed": float(all(satisfied)), "constraints": sum(satisfied) / len(satisfied)}


def _split(number: int) -> Split:
    """Return the split of a topic: two of four are test, one validation, one sealed."""
    return ("test", "validation", "test", SEALED)[number % 4]


def _combinations(number: int, question: str, required: str, forbidden: str) -> list[list[tuple[str, Any]]]:
    """Return twelve sets of compatible constraints of a topic, sampled with the question's hash as seed.

    The numbers of constraints are those of IFEval (Zhou et al. 2023, arXiv 2311.07911): 56 % of its prompts have one,
    33 % two, 11 % three. Over the topics every type occurs alone.
    """
    random = Random(int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big"))  # noqa: S311 - sampling, not cryptography
    combinations: list[list[tuple[str, Any]]] = []
    for place, size in enumerate(SIZES):
        forms = _forms(random)
        form = forms[(number * (len(SIZES) - ALONE) + place) % len(forms)]
        several = [form, *_wording(form[0], required, forbidden, random)]
        any_type = [*forms, *_vocabulary(required, forbidden), *SURFACE]
        alone = [any_type[(number * ALONE + place) % len(any_type)]]
        combinations.append(alone if size == 1 else several[:size])
    return combinations


def _forms(random: Random) -> list[tuple[str, Any]]:
    few = random.randint(2, 5)
    return [
        ("lines", few),
        ("sentences", few),
        ("one_sentence", None),
        ("numbered_list", few),
        ("bulleted_list", few),
        ("json_keys", list(random.choice(KEYS))),
        ("words_at_most", 10 * few),
        ("words_at_least", 10 + 10 * few),
        ("paragraphs", few),
        ("items", few),
        ("first_word", random.choice(FIRST_WORDS)),
        ("last_word", random.choice(LAST_WORDS)),
    ]


def _vocabulary(required: str, forbidden: str) -> list[tuple[str, Any]]:
    return [("keyword", required), ("no_keyword", forbidden)]


def _wording(form: str, required: str, forbidden: str, random: Random) -> list[tuple[str, Any]]:
    """Return two constraints compatible with any form; a JSON object needs its commas and the case of its keys."""
    vocabulary = _vocabulary(required, forbidden)
    if form == "json_keys":
        return vocabulary
    constraints = [random.choice(vocabulary), random.choice(SURFACE)]
    random.shuffle(constraints)
    return constraints


SUITE = Suite(name=NAME, kind="generation", metrics=("followed", "constraints"), items=items, score=score)
