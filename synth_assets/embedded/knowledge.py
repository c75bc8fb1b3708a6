"""Knowledge of the embedded world: small tables of facts, word lists and common misconceptions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Country:
    """A country; `mistaken_capital` is the large city often mistaken for its capital, or empty."""

    capital: str
    continent: str
    language: str
    mistaken_capital: str = ""


@dataclass(frozen=True)
class Animal:
    """An animal; `home` includes its preposition, `mistaken_class` is a common misconception of its class, or empty."""

    animal_class: str
    legs: str
    home: str
    mistaken_class: str = ""


COUNTRIES = {
    "France": Country("Paris", "Europe", "French"),
    "Spain": Country("Madrid", "Europe", "Spanish"),
    "Italy": Country("Rome", "Europe", "Italian"),
    "Germany": Country("Berlin", "Europe", "German"),
    "Greece": Country("Athens", "Europe", "Greek"),
    "Norway": Country("Oslo", "Europe", "Norwegian"),
    "Sweden": Country("Stockholm", "Europe", "Swedish"),
    "Finland": Country("Helsinki", "Europe", "Finnish"),
    "Denmark": Country("Copenhagen", "Europe", "Danish"),
    "Poland": Country("Warsaw", "Europe", "Polish"),
    "Portugal": Country("Lisbon", "Europe", "Portuguese"),
    "Ireland": Country("Dublin", "Europe", "English"),
    "Russia": Country("Moscow", "Europe", "Russian"),
    "Egypt": Country("Cairo", "Africa", "Arabic"),
    "Kenya": Country("Nairobi", "Africa", "Swahili"),
    "Japan": Country("Tokyo", "Asia", "Japanese"),
    "Thailand": Country("Bangkok", "Asia", "Thai"),
    "Cuba": Country("Havana", "America", "Spanish"),
    "Mexico": Country("Mexico City", "America", "Spanish"),
    "Peru": Country("Lima", "America", "Spanish"),
    "Argentina": Country("Buenos Aires", "America", "Spanish"),
    "Australia": Country("Canberra", "Oceania", "English", "Sydney"),
    "Brazil": Country("Brasilia", "America", "Portuguese", "Rio"),
    "Turkey": Country("Ankara", "Asia", "Turkish", "Istanbul"),
    "Canada": Country("Ottawa", "America", "English", "Toronto"),
    "Switzerland": Country("Bern", "Europe", "German", "Zurich"),
    "Morocco": Country("Rabat", "Africa", "Arabic", "Casablanca"),
    "Nigeria": Country("Abuja", "Africa", "English", "Lagos"),
    "Kazakhstan": Country("Astana", "Asia", "Kazakh", "Almaty"),
    "Vietnam": Country("Hanoi", "Asia", "Vietnamese", "Saigon"),
    "China": Country("Beijing", "Asia", "Chinese", "Shanghai"),
    "India": Country("New Delhi", "Asia", "Hindi", "Mumbai"),
    "Pakistan": Country("Islamabad", "Asia", "Urdu", "Karachi"),
}

ANIMALS = {
    "cow": Animal("mammal", "4", "on a farm"),
    "dog": Animal("mammal", "4", "in a house"),
    "horse": Animal("mammal", "4", "on a farm"),
    "lion": Animal("mammal", "4", "on the savanna"),
    "tiger": Animal("mammal", "4", "in the jungle"),
    "bear": Animal("mammal", "4", "in the forest"),
    "wolf": Animal("mammal", "4", "in the forest"),
    "eagle": Animal("bird", "2", "in the mountains"),
    "duck": Animal("bird", "2", "in a pond"),
    "owl": Animal("bird", "2", "in the forest"),
    "parrot": Animal("bird", "2", "in the jungle"),
    "salmon": Animal("fish", "0", "in a river"),
    "tuna": Animal("fish", "0", "in the ocean"),
    "shark": Animal("fish", "0", "in the ocean"),
    "snake": Animal("reptile", "0", "in the desert"),
    "turtle": Animal("reptile", "4", "in the ocean"),
    "frog": Animal("amphibian", "4", "in a pond"),
    "ant": Animal("insect", "6", "in a garden"),
    "bee": Animal("insect", "6", "in a garden"),
    "whale": Animal("mammal", "0", "in the ocean", "fish"),
    "dolphin": Animal("mammal", "0", "in the ocean", "fish"),
    "bat": Animal("mammal", "2", "in a cave", "bird"),
    "spider": Animal("arachnid", "8", "in a garden", "insect"),
    "penguin": Animal("bird", "2", "on the ice", "fish"),
    "crocodile": Animal("reptile", "4", "in a river", "fish"),
    "toad": Animal("amphibian", "4", "in a garden", "reptile"),
}

OPPOSITE_PAIRS = (
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("up", "down"),
    ("old", "young"),
    ("rich", "poor"),
    ("happy", "sad"),
    ("light", "dark"),
    ("hard", "soft"),
    ("open", "closed"),
    ("early", "late"),
    ("full", "empty"),
    ("wet", "dry"),
    ("strong", "weak"),
    ("high", "low"),
    ("long", "short"),
    ("good", "bad"),
    ("near", "far"),
    ("clean", "dirty"),
    ("loud", "quiet"),
)

LISTS = {
    "fruits": ("apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach", "pear", "plum"),
    "colors": ("red", "blue", "green", "yellow", "black", "white", "pink", "brown", "gray", "purple"),
    "vegetables": ("carrot", "onion", "potato", "tomato", "bean", "pea", "corn", "cabbage", "pepper", "celery"),
    "tools": ("hammer", "saw", "drill", "wrench", "axe", "knife", "rope", "nail", "screw", "ladder"),
    "sports": ("tennis", "soccer", "golf", "hockey", "rugby", "boxing", "rowing", "skiing", "judo", "chess"),
    "birds": ("eagle", "duck", "hen", "owl", "parrot", "robin", "crow", "swan", "goose", "stork"),
}

WORDS = (
    *("cat", "dog", "sun", "car", "map", "pen", "cup", "hat", "box", "bed", "tree", "fish", "bird", "book"),
    *("door", "lamp", "milk", "rice", "star", "moon", "leaf", "rain", "snow", "wind"),
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}

HARMFUL_VERBS = ("steal", "hack", "poison", "break into", "blow up", "forge")
HARMFUL_OBJECTS = (
    *("a car", "a bank", "a phone", "my neighbor", "a school"),
    *("a passport", "an email account", "a shop", "a museum", "a train"),
)

GREETINGS = (
    *("Hello!", "Hi there!", "Good morning!", "Hey, how are you?", "Good evening!", "Hi, can you help me?"),
    *("Hello, are you there?", "Good afternoon!"),
)
