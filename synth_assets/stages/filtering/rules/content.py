"""Content rules: the instruction states an open task, and the response does it."""

import re

import numpy as np

from synth_assets.stages.filtering.features import SIDES, Features, Flags, Floats, Side, matching
from synth_assets.stages.filtering.rules.instruction_cues import (
    ASKS,
    ENDS_WITH_A_REQUEST,
    OPENS_A_STATEMENT,
    OPTIONS,
    REFERS_TO_TEXT,
    STATEMENT_WORDS,
)
from synth_assets.stages.filtering.rules.markup import PLACEHOLDER, PLACEHOLDER_WORDS
from synth_assets.stages.filtering.rules.safety import asks_for_harm
from synth_assets.text.refusals import DEFLECTION, REFUSAL
from synth_assets.text.words import TokenHashes, hash_words, shingles

WORKED_SOLUTION = (
    r"(?im:\A\s*(?:#+ *|\*\*)?(?:step\b *\d+\**[:.\n]|(?:solution|answer)\**[:\n])"
    r"|^#+ *\**(?:step \d+|(?:solution|answer|proof)\b\**:?[^\n?]*$)|^\**step 1\**[:.]|\\boxed *\{|^#{4} [\d$-]"
    r"|^(?:let's|let us|to) (?:solve|think|break|analyze|find) (?:this|the|it|step|about|that)\b.*[,:.]$)"
)
STATED_ANSWER = (
    r"(?is:(?:\bfinal answer (?:is|:)|\bthe answer is:? \S|\n\W*(?:answer|solution)\W*: *\S"
    r"|\bthe (?:correct|best|right) (?:answer|option|choice) is\b)(?:[^?]*[^?:\s])?\s*\z)"
)
"""Not followed by a question or an open label: those make it part of an example in the task."""
DERIVATION = (
    r"(?i:(?:\A|[.,;:!?]|\n)\s*(?:and )?(?:therefore|hence|thus|consequently|so)\b,? [^.?\n]*[=\d$]"
    r"|(?:\A|[.,;:!?]|\n)\s*(?:so|then|now|and|that|here|first|next)?,? ?we (?:get|have|obtain|find|know that"
    r"|can (?:use|write|see|find|solve|set up|simplify|substitute|express|rewrite|conclude|calculate|check"
    r"|represent))\b|\b(?:substituting|dividing|multiplying|subtracting|adding|simplifying|solving|plugging|rearranging"
    r"|factoring|using|applying|by) \w[^.?\n]*?"
    r"(?:\b(?:gives|yields|gets?|results|so|is at (?:most|least))\b|, we\b|, the\b)"
    r"|(?:[.!?]|\n)\s*since [^.?\n]*, [^.?\n]*[=\d$]|(?:[.?!]|\n)\s*the (?:\w+ ){1,3}(?:is|are) [^.?\n]*= *[\d$-])"
)
ENDS_OPEN = (
    r"(?:\?|:|(?m:^\s*\(?[A-Ea-e][).:]\s.*)"
    r"|\b(?i:find|calculate|determine|compute|what|how|prove|show|solve)\b[^.\n]*\.?)\s*\z"
)
ASSISTANT_OPENING = (
    r"(?i)\A\W*(?:sure|certainly|absolutely|of course"
    r"|(?:this is |that(?:'s| is) )?(?:an? )?(?:great|good|excellent) question"
    r"|i(?:'d| would) be happy to|i(?:'m| am) (?:happy to|glad (?:to|i|that|you))|you(?:'re| are) (?:very )?welcome"
    r"|as an ai\b|here(?:'s| is| are) (?:(?:an?|the|some|a few|three|four|five|ten|\d+) )?(?:\w+ ){0,2}"
    r"(?:tips?|ways?|steps?|ideas?|suggestions?|reasons?|examples?|list|answers?|solution|summary|breakdown|overview"
    r"|explanation)\b"
    r"|it (?:looks|seems) like you|thank you for (?:your|the) (?:question|message))\b[^?]*\z"
)
ANSWER_BELOW = (
    r"(?im:\n\s*(?:sure|certainly|of course|absolutely|i(?:'d| would) be happy to|great question)\b[!,. ]"
    r"|\n\s*here(?:'s| is| are) (?:\w+ ){1,3}(?:poem|story|haiku|essay|letter|email|list|summary|recipe|joke"
    r"|function|program|script|song|tips|ways|steps|ideas|examples|dishes|suggestions)\b[^?\n]*:[ \t]*\n)"
)
CARRIED_SOLUTION = f"{WORKED_SOLUTION}|{STATED_ANSWER}|{ANSWER_BELOW}"
ANSWERED_QUESTION = r"(?s)\A\W{0,3}[^\n?]{8,200}\?[ \t]*\n(?:[^?]{60,}\z|.*(?m:^\s*(?:\*|-|\d+\.) +\*\*))"
STEM = re.compile(r"\b[^\W\d_]{5}")  # the first five letters of the longer words
BLANK_LINE = re.compile(r"\W*\n\s*\n")
MISSING_FIGURE = (
    r"(?i)\b(?:in|from|on|using) the (?:figure|diagram)\b"
    r"|\b(?:in|from|on|of|using) the (?:given|accompanying|attached|above) (?:figure|diagram|picture|image)\b"
    r"|\b(?:figure|diagram|picture|image) (?:below|above|is shown|shown|to the right)\b"
    r"|\bthe (?:given|attached|accompanying) (?:figure|diagram|picture|image|photo)\b"
    r"|\bthe (?:figure|diagram|graph) (?:shows|represents|depicts|illustrates)\b"
    r"|\bthe shaded (?:region|area|part|portion)\b"
)
FIGURE = r"\[asy\]|```|https?://|!\[|<img|<svg|\\begin\{"
TALK_ABOUT_MESSAGE = (
    r"(?i)\b(?:your|the|this|last|previous|my) (?:message|question|prompt|response|input|request|text|code|problem)"
    r" (?:was|got|is|has been|appears to (?:be|have been)|seems to (?:be|have been)|(?:may|might) have been) (?:\w+ )?"
    r"(?:cut[ -]?off|cut short|incomplete|truncated|unfinished|missing)\b"
    r"|\b(?:got|was|been|be) (?:cut off|cut short|truncated)\b"
    r"|\b(?:do|does|did)(?:n't| not) (?:follow|match|adhere to|conform to|fit) the (?:(?:\w+ ){0,2})format"
    r"|\bdoes(?:n't| not) require (?:an?|any|the) (?:step-by-step|reasoning)|\b(?:exact|correct) format requested"
    r"|\bplease (?:provide|share|paste|complete|clarify|supply|rephrase|restate|specify) (?:me |us )?(?:with )?"
    r"(?:(?:more|some|the|your|an?|any|additional|further|full|complete|actual|specific|rest|of|original|entire|exact"
    r"|missing|relevant) )*(?:problem|question|statement|message|text|code|context|information|details|input|sentence"
    r"|article|passage|prompt|list|image|file|table)\b"
    r"|\b(?:do|did|can)(?:n't|not| not|'t) see (?:the|any|an?|your) (?:\w+ )?(?:problems?|questions?|code|text|images?"
    r"|figures?|diagrams?|pictures?|paragraphs?|equations?|message|attachment|input|article|list|file)\b"
    r"|\bno (?:specific |actual |clear )?(?:number|question|problem|text|input|code|data|information|image|list|figure"
    r"|diagram|equation|statement|paragraph|context|sentence|article) (?:(?:was|is|were|has been|have been) )?"
    r"(?:given|provided|specified|included|attached|stated)\b"
    r"|\bthere (?:is|are) no (?:question|problem|task|text|equation|image|code) (?:here|in|to)\b"
    r"|\bnot enough information (?:is |was )?(?:given|provided|in the (?:problem|question))\b"
    r"|\bi(?:'m| am) ready to (?:help|assist)\b|\bwhat(?:'s| is) (?:your|the) (?:question|problem)\?"
    r"|\byou (?:haven't|have not|didn't|did not|forgot to) (?:actually )?(?:provided?|included?|specif\w+|asked?|given?"
    r"|pasted?|attach\w*|finish\w*)\b"
    r"|\bit (?:seems|appears|looks) (?:like|that|as if|as though) "
    r"(?:your?\b[^.\n]{0,80}?|(?:there|the) (?:\w+ ){0,4}?)\b"
    r"(?:cut off|missing|incomplete|unfinished|forgot|accidentally|empty|blank|placeholder|mistake|typo|repeating)\b"
    r"|\bcorrect the response\b"
)
TALK_CHARACTERS = 400  # further on, such words are part of an answer that does the task
PIVOT = (
    r"(?i)\b(?:however|nevertheless|that said|instead|generally|typically|for example|according to|based on|could be"
    r"|as of"
    r"|here (?:is|are)|here's|but (?:i can [a-z]+|i'd|i would|some)|some (?:possible|of)|one (?:possible|option|way)"
    r"|i can (?:provide|give|offer|suggest|help|tell|share|generate|explain|describe|answer|draft|write))\b"
)
ASKS_FOR_A_MESSAGE = (
    r"(?i)\b(?:apolog\w+|sorry|refus\w+|declin\w+|regret|reject\w*|excuse|condol\w+|complain\w*|repl(?:y|ies)|respond"
    r"|response|e-?mails?|letter|message|note|dialogu?e|conversation|script|speech|interview|pretend|role|customer)\b"
)
FILLER = (
    r"(?i)\A\W*(?:(?:sure(?: thing)?|ok|okay|certainly|of course|absolutely|great|alright|i see|understood|got it"
    r"|thanks?(?: you)?|let me know(?: if [^.!?\n]*)?|feel free to [^.!?\n]*|i hope (?:this|that|it) helps"
    r"|here (?:it is|you go)|no problem|done"
    r"|i(?:'d be happy to| would be happy to|'ll| will| can) (?:help|assist|do)(?: you)?(?: with)?"
    r"(?: (?:that|this|it))?"
    r"|(?:that|this|it)(?:'s| is) (?:right|correct|true|great|good|interesting))\W*){1,3}\z"
)
ASKS_FOR_PROSE = (
    r"(?i)\A\W*(?:(?:please|can you|could you) )*(?:explain|describe|discuss|elaborate|compose|outline"
    r"|(?:write|generate|create|draft|tell)(?: me)? (?:(?:an?|the) )?(?:\w+ ){0,2}(?:essay|story|poem|article|paragraph"
    r"|letter|email|speech|review|summary|song|report|blog post))\b"
)
PROSE_WORDS, FILLER_WORDS = 4, 60
ECHO_SHINGLE = 5
SIGNS = r"[^\s.\x{2026}_*#`~'\"-]|[.][^.]*-|-[^-]*[.]"  # dots and dashes together are Morse code


def empty(rows: Features, side: Side) -> Floats:
    """Return the words of a text; placeholders such as "<noinput>" and "..." count as 0, other signs ("+") as 1."""
    words = rows.word_counts(side).astype(np.float64)
    signs = np.flatnonzero(words == 0)
    words[signs] = matching(rows.text(side).gather(signs), SIGNS)
    return np.where(rows.contains(side, PLACEHOLDER, words < PLACEHOLDER_WORDS), 0.0, words)


def carries_solution(rows: Features) -> Floats:
    """Count marks of a worked solution or of an answered question in the instruction."""
    calculates = rows.lacking("instruction", ENDS_OPEN, rows.contains("instruction", r"[=$]|\d"))
    calculates = rows.lacking("instruction", ENDS_WITH_A_REQUEST, calculates)
    marks = rows.matches("instruction", DERIVATION, calculates)
    derived = marks > rows.contains("instruction", REFERS_TO_TEXT, marks > 0)
    marks, marked = (WORKED_SOLUTION, STATED_ANSWER, ANSWER_BELOW), rows.contains("instruction", CARRIED_SOLUTION)
    counts = [rows.matches("instruction", mark, marked) for mark in marks]
    return np.sum(counts, axis=0) + derived + _answers_itself(rows)


def _answers_itself(rows: Features) -> Flags:
    """Return where a question is followed by a text with one of its longer words, or two after a blank line.

    A text after a blank line may be the task's input, which may share a word with the question.
    """
    texts = rows.text("instruction")
    lines = rows.holds("instruction", "?") & rows.holds("instruction", "\n")
    answered = rows.contains("instruction", ANSWERED_QUESTION, lines)
    for exempt in (OPTIONS, REFERS_TO_TEXT):
        answered = rows.lacking("instruction", exempt, answered)
    for index in np.flatnonzero(answered).tolist():
        question, _, rest = texts[index].lower().partition("?")
        stems = set(STEM.findall(question))
        needed = 2 if BLANK_LINE.match(rest) else 1
        answered[index] = len(stems & set(STEM.findall(rest))) >= min(needed, max(len(stems), 1))
    return answered


def is_an_answer(rows: Features) -> Floats:
    """Return 1 where the instruction opens like an assistant's answer and asks nothing."""
    return rows.matches("instruction", ASSISTANT_OPENING)


def states_no_task(rows: Features) -> Floats:
    """Return 1 where an instruction of some length has no question, imperative or request.

    An unknown first word may be an imperative: only openings that cannot be one count.
    """
    long = rows.word_counts("instruction") >= STATEMENT_WORDS
    states = rows.contains("instruction", OPENS_A_STATEMENT, long)
    return rows.lacking("instruction", ASKS, states).astype(np.float64)


def lacks_its_figure(rows: Features) -> Floats:
    """Return 1 where the instruction refers to a figure that it does not contain."""
    missing = rows.contains("instruction", MISSING_FIGURE)
    return rows.lacking("instruction", FIGURE, missing).astype(np.float64)


def echo_similarity(rows: Features) -> Floats:
    """Return the Jaccard similarity of the 5-word shingles of instruction and response, 0..1.

    NaN where the lengths alone exclude an echo, and where the instruction has fewer than three words: a greeting may be
    answered by the same greeting.
    """
    instruction_words, response_words = rows.word_counts("instruction"), rows.word_counts("response")
    shorter, longer = np.minimum(instruction_words, response_words), np.maximum(instruction_words, response_words)
    similar_length = shorter >= longer * rows.spec.max_echo_similarity / 4
    indices = np.flatnonzero(similar_length & (instruction_words >= 3))
    similarity = np.full(len(rows), np.nan)
    similarity[indices] = _jaccard(*(hash_words(rows.text(side).gather(indices).to_list()) for side in SIDES))
    return similarity


def talks_about_message(rows: Features) -> Floats:
    """Return 1 where the response begins with comments on the request, unless the task is to write a message."""
    talks = matching(rows.text("response").str.head(TALK_CHARACTERS), TALK_ABOUT_MESSAGE)
    return rows.lacking("instruction", ASKS_FOR_A_MESSAGE, talks).astype(np.float64)


def refuses_harmless_task(rows: Features) -> Floats:
    """Return 1 where the response refuses and does not do the task, although the request is harmless."""
    refused = rows.contains("response", REFUSAL)
    refused = rows.lacking("response", PIVOT, refused) | rows.contains("response", DEFLECTION)
    refused = rows.lacking("instruction", ASKS_FOR_A_MESSAGE, refused)
    return (refused & ~asks_for_harm(rows, refused)).astype(np.float64)


def trivial_answer(rows: Features) -> Floats:
    """Return 1 where the response is a polite filler, or has only a few words although the task asks for prose."""
    words = rows.word_counts("response")
    short = rows.contains("instruction", ASKS_FOR_PROSE, words < PROSE_WORDS)
    short = rows.lacking("instruction", r"(?i)\bwords?\b", short)
    return (rows.contains("response", FILLER, words < FILLER_WORDS) | short).astype(np.float64)


def _jaccard(first: TokenHashes, second: TokenHashes) -> Floats:
    sets = [
        np.unique(np.stack(shingles(words, ECHO_SHINGLE)[::-1], axis=1).astype(np.uint64), axis=0)
        for words in (first, second)
    ]
    sizes = sum(np.bincount(keys[:, 0].astype(np.int64), minlength=first.texts) for keys in sets)
    both = np.concatenate(sets)
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    again = (both[1:] == both[:-1]).all(axis=1)
    shared = np.bincount(both[1:][again, 0].astype(np.int64), minlength=first.texts)
    return shared / np.maximum(sizes - shared, 1)
