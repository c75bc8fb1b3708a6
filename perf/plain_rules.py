"""Implement the filter rules as a plain loop: row by row, with `re`, sets and Counters.

The baseline of perf/filtering.py. It applies the same patterns to the same texts in the same order, compiles each once,
splits the words of a text once, searches a text only if the rule needs it, and stops at the first reason. Language and
personal data are left out. tests/filtering/test_plain_rules.py compares its decisions with those of the rules.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from synth_assets.stages.filtering.features import Side
from synth_assets.stages.filtering.rules import content, instruction_cues, markup, repetition, safety, truncation
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.text.words import fold

SPEC = FilterSpec()
WORD = re.compile(r"\w+")
OBSCENE = frozenset(safety.OBSCENE_WORDS.split())


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern in the syntax of Rust: translate the end of a text and characters by code point."""
    by_number = re.sub(r"\\x\{([0-9a-f]+)\}", lambda match: f"\\u{int(match[1], 16):04x}", pattern)
    return re.compile(by_number.replace(r"\z", r"\Z"))


MODULES = (instruction_cues, content, truncation, markup, repetition, safety)
SEARCH: dict[str, Callable[[str], object]] = {
    name: _compiled(value).search
    for module in MODULES
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str) and name not in {"TASK_VERBS", "OBSCENE_WORDS"}
}


def objection(instruction: str, response: str, context_bytes: int) -> str:
    """Return the first reason to reject an imported row; empty if it passes."""
    instruction, response = instruction.replace("\u2019", "'"), response.replace("\u2019", "'")
    words: dict[Side, list[str]] = {
        "instruction": WORD.findall(fold(instruction).lower()),
        "response": WORD.findall(fold(response).lower()),
    }
    texts: dict[Side, str] = {"instruction": instruction, "response": response}
    for reason, rejects in _rules(texts, words, context_bytes):
        if rejects:
            return reason
    return ""


def _rules(texts: dict[Side, str], words: dict[Side, list[str]], context_bytes: int) -> Iterator[tuple[str, bool]]:
    instruction, response = texts.values()
    for side, text in texts.items():
        yield f"empty_{side}", _is_empty(text, len(words[side]))
    yield "too_many_characters", max(map(len, texts.values())) > SPEC.max_characters
    yield "instruction_too_long", len(words["instruction"]) > SPEC.max_instruction_words
    yield "response_too_long", len(words["response"]) > SPEC.max_response_words
    for side, text in texts.items():
        yield f"control_token_in_{side}", bool(SEARCH["CONTROL_MARK"](text))
    yield "carries_solution", _carries_solution(instruction)
    yield "instruction_is_an_answer", bool(SEARCH["ASSISTANT_OPENING"](instruction))
    for side, text in texts.items():
        yield f"{side}_looks_cut_off", _looks_cut_off(side, text, len(words[side]))
    yield "unbalanced_fences", "```" in response and len(re.findall(r"(?m)^\s*```", response)) % 2 == 1
    yield "echo", _echoes(words["instruction"], words["response"])
    yield from _contents(instruction, response, words)
    yield from _repetitions(texts, words)
    yield "obscene", any(OBSCENE.intersection(side_words) for side_words in words.values())
    yield "helps_to_harm", bool(SEARCH["HARMFUL_REQUEST"](instruction) and not SEARCH["REFUSES"](response))
    means = [sum(map(len, side_words)) / max(len(side_words), 1) for side_words in words.values()]
    yield "words_too_long", max(means) > SPEC.max_mean_word_bytes
    yield "too_long_for_base", len(instruction.encode()) + len(response.encode()) > context_bytes


def _contents(instruction: str, response: str, words: dict[Side, list[str]]) -> Iterator[tuple[str, bool]]:
    message = SEARCH["ASKS_FOR_A_MESSAGE"]
    talks = SEARCH["TALK_ABOUT_MESSAGE"](response[: content.TALK_CHARACTERS])
    yield "talks_about_message", bool(talks and not message(instruction))
    refused = (SEARCH["REFUSAL"](response) and not SEARCH["PIVOT"](response)) or SEARCH["DEFLECTION"](response)
    harmless = not message(instruction) and not SEARCH["HARMFUL_REQUEST"](instruction)
    yield "refuses_harmless_task", bool(refused and harmless)
    yield "trivial_answer", _is_trivial(instruction, response, len(words["response"]))
    long = len(words["instruction"]) >= instruction_cues.STATEMENT_WORDS
    yield "states_no_task", bool(long and SEARCH["OPENS_A_STATEMENT"](instruction) and not SEARCH["ASKS"](instruction))
    yield "lacks_its_figure", bool(SEARCH["MISSING_FIGURE"](instruction) and not SEARCH["FIGURE"](instruction))


def _is_empty(text: str, words: int) -> bool:
    if words >= markup.PLACEHOLDER_WORDS:
        return False
    return bool(SEARCH["PLACEHOLDER"](text) or not (words or SEARCH["SIGNS"](text)))


def _is_trivial(instruction: str, response: str, words: int) -> bool:
    if words < content.FILLER_WORDS and SEARCH["FILLER"](response):
        return True
    prose = words < content.PROSE_WORDS and SEARCH["ASKS_FOR_PROSE"](instruction)
    return bool(prose and not re.search(r"(?i)\bwords?\b", instruction))


def _repetitions(texts: dict[Side, str], words: dict[Side, list[str]]) -> Iterator[tuple[str, bool]]:
    measured: list[Side] = [side for side in texts if len(words[side]) >= SPEC.repetition_min_words]
    lines = max((_line_share(texts[side]) for side in measured), default=0.0)
    refrain = lines and SEARCH["ASKS_FOR_VERSE"](texts["instruction"])
    yield "duplicate_lines", lines > SPEC.max_duplicate_line_share and not refrain
    tops = [_top_share(words[side], repetition.SHORT) for side in measured]
    yield "repeated_3gram", max(tops, default=0.0) > SPEC.max_top_3gram_share
    again = [_duplicate_share(words[side], repetition.LONG) for side in measured]
    yield "duplicate_5grams", max(again, default=0.0) > SPEC.max_duplicate_5gram_share


def _carries_solution(instruction: str) -> bool:
    if SEARCH["CARRIED_SOLUTION"](instruction):
        return True
    calculates = re.search(r"[=$]|\d", instruction) and not SEARCH["ENDS_OPEN"](instruction)
    if calculates and not SEARCH["ENDS_WITH_A_REQUEST"](instruction) and SEARCH["DERIVATION"](instruction):
        return not SEARCH["REFERS_TO_TEXT"](instruction) or len(re.findall(content.DERIVATION, instruction)) > 1
    if "?" not in instruction or "\n" not in instruction or not SEARCH["ANSWERED_QUESTION"](instruction):
        return False
    if SEARCH["OPTIONS"](instruction) or SEARCH["REFERS_TO_TEXT"](instruction):
        return False
    question, _, rest = instruction.lower().partition("?")
    stems = set(content.STEM.findall(question))
    needed = 2 if content.BLANK_LINE.match(rest) else 1
    return len(stems.intersection(content.STEM.findall(rest))) >= min(needed, max(len(stems), 1))


def _looks_cut_off(side: Side, text: str, words: int) -> bool:
    tail = text[-truncation.TAIL_CHARACTERS :]
    ended, hanging = SEARCH["SENTENCE_END"](tail), SEARCH["HANGING_SIGN"](tail)
    if _torn_mathematics(text):
        return True
    if side == "response":
        if SEARCH["PROMISES"](tail):
            return True
        if "#" in text and SEARCH["STEPS"](text) and re.search(r"[=$]", text) and not SEARCH["CONCLUDES"](text):
            return True
    if ended and not hanging:
        return False
    hanging = hanging or (words >= truncation.HANGING_MIN_WORDS and SEARCH["HANGING_WORDS"](tail))
    hanging = hanging or (words >= truncation.STRANDED_MIN_WORDS and SEARCH["STRANDED_WORDS"](tail))
    cut = bool(hanging and words >= truncation.MIN_WORDS[side])
    if not cut and not ended and words >= truncation.LONG_WORDS and SEARCH["LAST_LINE_WORDS"](tail):
        cut = not SEARCH["LIST_LINE"](tail)
        cut = cut or bool(SEARCH["LONG_LIST_LINE"](tail) and SEARCH["ENDED_LIST_LINE"](text))
    if side == "instruction" and not cut and not ended and SEARCH["LAST_LINE_LONG"](tail):
        cut = bool(SEARCH["BREAKS_OFF"](tail) and not SEARCH["ENDS_WITH_A_REQUEST"](tail))
    return cut and not (side == "instruction" and SEARCH["MAY_END_OPEN"](text))


def _torn_mathematics(text: str) -> bool:
    if "\\" not in text and "[asy]" not in text:
        return False
    if text.count(r"\begin{") != text.count(r"\end{") or text.count("[asy]") != text.count("[/asy]"):
        return True
    displayed = len(re.findall(r"\\\[(?:\s|[A-Za-z\\(])", text)) != text.count(r"\]")
    if displayed and re.search(r"(?m)^\s*\\\[", text):
        return True
    return bool(SEARCH["TEX_COMMAND"](text)) and text.count("{") != text.count("}")


def _ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(size)), strict=False))


def _echoes(instruction: list[str], response: list[str]) -> bool:
    shorter, longer = sorted((len(instruction), len(response)))
    if len(instruction) < 3 or shorter < longer * SPEC.max_echo_similarity / 4:
        return False
    first, second = (set(_ngrams(words, content.ECHO_SHINGLE)) or {tuple(words)} for words in (instruction, response))
    return len(first & second) / len(first | second) > SPEC.max_echo_similarity


def _line_share(text: str) -> float:
    lines = Counter(line.strip() for line in text.split("\n"))
    said = sum(len(line) * count for line, count in lines.items())
    return sum(len(line) * (count - 1) for line, count in lines.items()) / max(said, 1)


def _top_share(words: list[str], size: int) -> float:
    grams = Counter(_ngrams(words, size))
    most = max((sum(map(len, gram)) * count for gram, count in grams.items() if count > 1), default=0)
    return most / max(sum(map(len, words)), 1)


def _duplicate_share(words: list[str], size: int) -> float:
    seen: set[tuple[str, ...]] = set()
    covered = [False] * len(words)
    for place, gram in enumerate(_ngrams(words, size)):
        if gram in seen:
            covered[place : place + size] = [True] * size
        seen.add(gram)
    return sum(len(word) for word, again in zip(words, covered, strict=True) if again) / max(sum(map(len, words)), 1)
