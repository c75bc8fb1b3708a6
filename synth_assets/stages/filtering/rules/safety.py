"""Safety rules: obscene language, help with harmful requests, and personal data."""

import re
from ipaddress import AddressValueError, IPv4Address

import numpy as np
import polars as pl

from synth_assets.stages.filtering.features import SIDES, Features, Flags, Floats
from synth_assets.stages.filtering.rules.word_lists import word_list
from synth_assets.text.lexicon import hash_lexicon
from synth_assets.text.redaction import KEY

OBSCENE_WORDS = " ".join(word_list("obscene_words"))
OBSCENITIES = hash_lexicon(OBSCENE_WORDS)
HARMFUL_DEED = (
    r"(?:steal|rob|kidnap|murder|assassinate|poison|blackmail|stalk|rape|torture|molest|strangle|hack|hack into"
    r"|break into|blow up|set fire to|burn down|forge|counterfeit|launder|smuggle|sabotage|vandalize|hijack"
    r"|kill (?:my|an?|the|him|her|them|his|your|our|someone|somebody|people|myself|yourself))"
)
HARMFUL_THING = (
    r"(?:(?:make|build|construct|create|assemble|buy|get|synthesi[sz]e|cook|produce|plant) (?:\w+ ){0,3}?"
    r"(?:bombs?|explosives?|grenades?|molotov|nerve agents?|ricin|anthrax|methamphetamine|crystal meth|ransomware"
    r"|malware|computer virus|keyloggers?|fake (?:ids?|passports?|money)|child porn\w*)"
    r"|commit (?:suicide|fraud|murder|arson|a crime)|(?:cheat on|evade) (?:my |the )?tax(?:es)?"
    r"|cover up a (?:crime|murder))"
)
ASKS_FOR = (
    r"(?:how (?:do|can|could|would|should|to|might)(?: (?:i|we|you|someone|one|anyone))?(?: (?:best|safely|secretly))?"
    r"|(?:tell|show|teach) me (?:how|ways?|the best way)(?: to)?|help me"
    r"|(?:ways?|steps|instructions|plans?|guide|tutorial|recipe|trick) (?:to|for|on)(?: how to)?"
    r"|(?:want|need|going|help me|like|trying|able) to)"
)
HARMFUL_REQUEST = rf"(?i)\b{ASKS_FOR} (?:{HARMFUL_DEED}|{HARMFUL_THING})\b"
HARMLESS_OBJECTS = {
    "steal": "base bases show scene spotlight limelight thunder heart hearts kiss focus puck",
    "kill|murder|torture": "process processes thread threads task tasks job jobs session sessions server port "
    "connection container pod program script weeds grass mold mildew bacteria germs virus viruses fungus fleas ants "
    "ant colony aphids mosquitoes flies bugs pests mites lice ticks bedbugs cockroaches roaches time boredom lights "
    "mood vibe darlings test",
    "blow up": "balloon balloons photo photos photograph image images picture pictures mattress airbed tire tires tyre "
    "raft map tiktok twitter youtube instagram",
    "break into": "industry career careers tech acting modeling consulting programming management sprint song pieces "
    "teams chunks syllables coconut",
    "forge": "sword swords knife knives blade blades axe axes horseshoe iron steel friendship friendships relationship "
    "relationships bond bonds alliance alliances partnership partnerships path",
    "hack": "productivity sleep habits day morning routine metabolism brain learning growth together",
    "hijack": "scroll scrolling",
    "launder": "clothes clothing sheets towel towels linens shirt shirts curtains wool silk sweater sweaters",
    "poison": "cache query",
}
HARMLESS_KINDS = (
    r"(?:make|build|buy|get|create|produce) (?:\w+ )?"
    r"(?:(?:bath|seed|cherry|chocolate|cocoa|photo|glitter) (?:bombs?|grenades?)"
    r"|(?:malware|ransomware|keylogger|explosives?|bomb|anthrax) (?:detect\w+|analy\w+|scann\w+|protect\w+|prevent\w+"
    r"|awareness|polic\w+|response|defense|disposal|squad|shelter|vaccin\w+|removal|classif\w+)\b)"
)
OWNERS = r"(?:a|an|the|my|your|our|his|her|their|someone's|some|any|all|of|this|second|third|on) "
END = r"(?:[^\w ]|$| (?:a|and|at|by|for|from|in|like|naturally|on|or|that|to|using|when|with|without)\b)"
HARMLESS_MEANINGS = "|".join(
    rf"(?:{verb}) (?:{OWNERS})*(?:\w+ )?(?:{things.replace(' ', '|')}){END}"
    for verb, things in HARMLESS_OBJECTS.items()
)
HARMLESS_USE = rf"(?i)\b{ASKS_FOR} (?:{HARMLESS_KINDS}|{HARMLESS_MEANINGS})"
"""Harmless uses of the same verbs: homonyms and figures of speech as in XSTest (Röttger et al. 2023, 2308.01263)."""
REFUSES = (
    r"(?i)\b(?:cannot|can't|can not|won't|will not|unable to|not able to|not going to|must not|refuse to|shouldn't"
    r"|should not|don't|do not) (?:help|assist|provide|support|share|give|do|answer|comply|fulfill|offer|create|write"
    r"|encourage|condone|engage|recommend|participate|discuss|be)\b"
    r"|\b(?:illegal|against the law|unethical|a crime|a criminal offen[cs]e)\b"
)

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
RESERVED_DOMAIN = re.compile(
    r"(?i)@(?:.*\.)?(?:\w*(?:example|domain|company|email|sample|test|yoursite|website)[\w-]*\.\w+"
    r"|[\w-]+\.(?:test|example|invalid|local|localhost))$"
)
PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?|\d{3}[ .-])\d{3}[ .-]\d{3,4}(?![\w-]|\.\d)"
    r"|(?<![\w.])\+\d{1,3}(?:[ .-]?\d{2,4}){3,4}(?![\w-])"
)
CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-]|\.\d)")
CARD_PREFIX = re.compile(r"^(?:4|5[1-5]|2[2-7]|3[47]|6(?:011|4|5))")
IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)")
SMALLEST_IN_IP = 40
WELL_KNOWN_IP = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4"})
MAY_HOLD_PERSONAL_DATA = (
    r"@|[0-9](?:[ .()-]{0,2}[0-9]){6}|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
    r"|PRIVATE KEY|AKIA|gh[pousr]_|sk-|xox|AIza|hf_|eyJ"
)


def obscene_words(rows: Features) -> Floats:
    """Count the slurs and obscenities of a row, as whole words."""
    counts = [rows.lexicon_counts(side, OBSCENITIES) for side in SIDES]
    return np.sum(counts, axis=0).astype(np.float64)


def complies_with_harm(rows: Features) -> Floats:
    """Return 1 where the instruction asks for help with a harmful deed and the response does not refuse."""
    return rows.lacking("response", REFUSES, asks_for_harm(rows)).astype(np.float64)


def asks_for_harm(rows: Features, among: Flags | None = None) -> Flags:
    """Return where the instruction asks for help with a harmful deed, not only with a harmless homonym."""
    harmful = rows.contains("instruction", HARMFUL_REQUEST, among)
    harmless = rows.matches("instruction", HARMLESS_USE, harmful)
    return harmful & (rows.matches("instruction", HARMFUL_REQUEST, harmful) > harmless)


def personal_data(rows: Features) -> Floats:
    """Count e-mail addresses, phone, card and IP numbers and keys of a row, except reserved example values."""
    return np.sum([_personal_data(rows.text(side)) for side in SIDES], axis=0)


def _personal_data(texts: pl.Series) -> Floats:
    counts = np.zeros(len(texts))
    for index in np.flatnonzero(texts.str.contains(MAY_HOLD_PERSONAL_DATA).to_numpy()):
        counts[index] = count_personal_data(texts[int(index)])
    return counts


def count_personal_data(text: str) -> int:
    """Count the pieces of personal data in one text."""
    emails = sum(not RESERVED_DOMAIN.search(match[0]) for match in EMAIL.finditer(text))
    phones = sum(not _fictional(match[0]) for match in PHONE.finditer(text))
    cards = sum(_is_card(match[0]) for match in CARD.finditer(text))
    return (
        emails + phones + cards + len(KEY.findall(text)) + sum(_is_public_ip(match[0]) for match in IP.finditer(text))
    )


def _fictional(phone: str) -> bool:
    """Return whether a number is fictional: 555 numbers are reserved in North America, runs of digits unassigned."""
    digits = re.sub(r"\D", "", phone)
    return "555" in digits or len(set(digits)) <= 2 or digits[-10:] in {"1234567890", "0123456789", "9876543210"}


def _is_card(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    return bool(CARD_PREFIX.match(digits)) and len(set(digits)) > 2 and luhn_valid(digits)


def luhn_valid(digits: str) -> bool:
    """Return whether the check digit of a card number is right (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_public_ip(text: str) -> bool:
    """Return whether a text is a public IP address; four small numbers are taken for a version."""
    if max(map(int, text.split("."))) < SMALLEST_IN_IP:
        return False
    try:
        return IPv4Address(text).is_global and not text.endswith(".0") and text not in WELL_KNOWN_IP
    except AddressValueError:
        return False
