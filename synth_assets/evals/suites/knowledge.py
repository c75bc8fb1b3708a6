"""Short factual questions, matched after normalisation; written for this project."""

import json
import re
import unicodedata
from pathlib import Path

from synth_assets.evals.constraints import words
from synth_assets.evals.suite import Item, Suite

NAME = "knowledge"
MAX_WORDS = 40  # a longer answer may contain anything
ARTICLES = frozenset(("a", "an", "the"))

FACTS: tuple[tuple[str, str], ...] = (
    # question; accepted answers, separated by |
    ("What is the capital of Portugal?", "Lisbon|Lisboa"),
    ("What is the capital of Australia?", "Canberra"),
    ("What is the capital of Canada?", "Ottawa"),
    ("What is the capital of Turkey?", "Ankara"),
    ("What is the capital of Brazil?", "Bras\u00edlia"),
    ("What is the capital of Switzerland?", "Bern|Berne"),
    ("What is the capital of Kenya?", "Nairobi"),
    ("What is the capital of Vietnam?", "Hanoi|Ha Noi"),
    ("What is the capital of New Zealand?", "Wellington"),
    ("What is the capital of Morocco?", "Rabat"),
    ("Which ocean lies between Africa and Australia?", "Indian Ocean|Indian"),
    ("Which is the longest river of South America?", "Amazon"),
    ("On which continent does the Sahara lie?", "Africa"),
    ("Which country has the city of Kyoto?", "Japan"),
    ("Which mountain is the highest above sea level?", "Everest|Sagarmatha|Chomolungma"),
    ("Which sea separates Italy from Croatia?", "Adriatic"),
    ("Which planet is the closest to the Sun?", "Mercury"),
    ("Which planet is the largest of the solar system?", "Jupiter"),
    ("Which planet is known for its bright rings and was seen by Galileo with ears?", "Saturn"),
    ("How many planets orbit the Sun?", "8|eight"),
    ("What is the chemical symbol of sodium?", "Na"),
    ("What is the chemical symbol of iron?", "Fe"),
    ("What is the chemical symbol of lead?", "Pb"),
    ("What is the chemical formula of water?", "H2O"),
    ("Which gas do plants take from the air to build sugar?", "carbon dioxide|CO2"),
    ("Which gas makes up most of the air?", "nitrogen|N2"),
    ("Which metal is liquid at room temperature?", "mercury"),
    ("Which element has the atomic number 1?", "hydrogen"),
    ("Which element has the atomic number 6?", "carbon"),
    ("At how many degrees Celsius does water boil at sea level?", "100|one hundred|a hundred"),
    ("What is the SI unit of force?", "newton|N"),
    ("What is the SI unit of electric current?", "ampere|amp"),
    ("What is the SI unit of frequency?", "hertz|Hz"),
    ("Which instrument measures air pressure?", "barometer"),
    ("Which force pulls an apple to the ground?", "gravity|gravitation|gravitational force"),
    ("Which organ pumps blood through the body?", "heart"),
    ("Which organ of the body makes bile?", "liver"),
    ("How many chambers does a human heart have?", "4|four"),
    ("How many bones does an adult human usually have?", "206"),
    ("Which vitamin does the skin make in sunlight?", "vitamin D|D"),
    ("Which blood cells carry oxygen?", "red blood cells|red cells|erythrocytes"),
    ("Which molecule carries the genes of humans?", "DNA|deoxyribonucleic acid"),
    ("How many legs does a spider have?", "8|eight"),
    ("How many legs does an insect have?", "6|six"),
    ("What is a young frog with a tail called?", "tadpole"),
    ("Which bird lays the largest eggs?", "ostrich"),
    ("Which mammal can truly fly?", "bat|bats"),
    ("Which is the largest animal alive?", "blue whale"),
    ("Who wrote Hamlet?", "Shakespeare"),
    ("Who wrote Don Quixote?", "Cervantes"),
    ("Who wrote War and Peace?", "Tolstoy|Tolstoi"),
    ("Who wrote Pride and Prejudice?", "Austen"),
    ("Who wrote the Odyssey, by tradition?", "Homer"),
    ("Who painted the Mona Lisa?", "Leonardo|da Vinci"),
    ("Who painted Guernica?", "Picasso"),
    ("Who composed the opera The Magic Flute?", "Mozart"),
    ("Who composed the Ode to Joy of the Ninth Symphony?", "Beethoven"),
    ("Who formulated the laws of motion that bear his name, in 1687?", "Newton"),
    ("Who published the theory of general relativity?", "Einstein"),
    ("Who discovered penicillin?", "Fleming"),
    ("Who wrote On the Origin of Species?", "Darwin"),
    ("In which year did the Second World War end?", "1945"),
    ("In which year did people first walk on the Moon?", "1969"),
    ("In which year did the Berlin Wall fall?", "1989"),
    ("In which year did the French Revolution begin?", "1789"),
    ("Which ship sank in April 1912 after it met an iceberg?", "Titanic"),
    ("Which wall was built across northern England by a Roman emperor?", "Hadrian's Wall|Hadrian"),
    ("Which language do most people in Brazil speak?", "Portuguese"),
    ("Which language has the most native speakers in Austria?", "German"),
    ("How many letters does the English alphabet have?", "26|twenty-six|twenty six"),
    ("What is the plural of the English word mouse, the animal?", "mice"),
    ("What is the past tense of the English verb to go?", "went"),
    ("What is the opposite of the word ancient?", "modern|new|recent"),
    ("How many sides does a hexagon have?", "6|six"),
    ("How many degrees do the angles of a triangle have together?", "180"),
    ("What is the square root of 144?", "12|twelve"),
    ("What is 7 times 8?", "56|fifty-six|fifty six"),
    ("What is the smallest prime number?", "2|two"),
    ("What is the next prime number after 13?", "17|seventeen"),
    ("How many minutes does a day have?", "1440"),
    ("How many seconds does an hour have?", "3600"),
    ("How many bits does a byte have?", "8|eight"),
    ("What is the decimal value of the binary number 1010?", "10|ten"),
    ("Which currency is used in Japan?", "yen"),
    ("Which currency is used in India?", "rupee|rupees"),
    ("How many players of one team are on the field in association football?", "11|eleven"),
    ("How many squares does a chessboard have?", "64|sixty-four|sixty four"),
    ("How many strings does a violin have?", "4|four"),
    ("How many keys does a modern concert piano have?", "88|eighty-eight|eighty eight"),
    ("Which colour comes from mixing blue and yellow paint?", "green"),
    ("Which season follows winter?", "spring"),
    ("Which month has the fewest days?", "February"),
    ("How many years does a century have?", "100|one hundred|a hundred|hundred"),
    ("Which direction does the needle of a compass show?", "north"),
    ("From which grain is most bread baked in Europe?", "wheat"),
    ("Which drink is pressed from grapes and fermented?", "wine"),
    ("From which animal does mutton come?", "sheep"),
    ("What do silkworms eat?", "mulberry leaves|mulberry"),
    ("What do caterpillars become?", "butterflies|butterfly|moths|moth"),
    ("What is frozen water called?", "ice"),
)


def items(folder: Path | None = None) -> list[Item]:
    """Return one item per fact, all of them test items."""
    return [
        Item(
            item_id=f"{NAME}/{number:03}",
            suite=NAME,
            split="test",
            kind="generation",
            prompt=f"{question} Answer in a few words.",
            answer=json.dumps(answers.split("|"), ensure_ascii=False),
            cluster=f"{NAME}/{number:03}",
        )
        for number, (question, answers) in enumerate(FACTS)
    ]


def score(item: Item, response: str) -> dict[str, float | None]:
    """Return `right`: the response contains an accepted answer and has at most 40 words, and `exact`: it is the answer.

    The question's own words are removed from the response first, so that repeating the question does not count.
    """
    tokens = normalised_words(response)
    question = normalised_words(item.prompt.partition("?")[0])
    tokens = _without(tokens, question)
    accepted = [normalised_words(answer) for answer in json.loads(item.answer)]
    right = len(tokens) <= MAX_WORDS and any(_is_contained(answer, tokens) for answer in accepted)
    return {"right": float(right), "exact": float(tokens in accepted)}


def normalised_words(text: str) -> list[str]:
    """Return the words without accents, articles, case, and the commas and spaces inside numbers."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    plain = re.sub(r"(?<=\d)[, \u202f](?=\d{3}\b)", "", plain)
    return [word for word in words(plain) if word not in ARTICLES]


def _is_contained(answer: list[str], tokens: list[str]) -> bool:
    return any(tokens[start : start + len(answer)] == answer for start in range(len(tokens) - len(answer) + 1))


def _without(tokens: list[str], question: list[str]) -> list[str]:
    size = len(question)
    starts = (start for start in range(len(tokens) - size + 1) if tokens[start : start + size] == question)
    start = next(starts, None)
    return tokens if start is None else tokens[:start] + tokens[start + size :]


SUITE = Suite(
    name=NAME, kind="generation", metrics=("right", "exact"), items=items, score=score, guards={"right": "knowledge"}
)
