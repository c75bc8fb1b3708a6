"""Whether there is a task, whether the instruction leaves it open, and whether the response does it."""

import numpy as np

from synth_assets.filtering.features import SIDES, Features, Floats, Side
from synth_assets.filtering.formats import PLACEHOLDER
from synth_assets.filtering.safety import HARMFUL_REQUEST
from synth_assets.text import Words, hash_words, shingles

WORKED_SOLUTION = (
    r"(?im)\A\s*(?:#+ *|\*\*)?(?:step\b *\d+\**[:.\n]|(?:solution|answer)\**[:\n])"
    r"|^#+ *\**step \d+|^\**step 1\**[:.]|\\boxed *\{|^#{4} [\d$-]"
    r"|^(?:let's|let us|to) (?:solve|think|break|analyze|find) (?:this|the|it|step|about|that)\b.*[,:.]$"
)
STATED_ANSWER = (
    r"(?is)(?:\bfinal answer (?:is|:)|\bthe answer is:? \S|\n(?:answer|solution): *\S"
    r"|\bthe (?:correct|best|right) (?:answer|option|choice) is\b)(?:[^?]*[^?:\s])?\s*\z"
)
"""With neither a question nor an open label after it; otherwise it belongs to an example that the task gives."""
ASSISTANT_OPENING = (
    r"(?i)\A\W*(?:sure|certainly|absolutely|of course|great question|i(?:'d| would) be happy to|i'm happy to"
    r"|as an ai\b|here(?:'s| is| are) (?:(?:an?|the|some|a few|three|four|five|ten|\d+) )?(?:\w+ ){0,2}"
    r"(?:tips?|ways?|steps?|ideas?|suggestions?|reasons?|examples?|list|answers?|solution|summary|breakdown|overview|explanation)\b"
    r"|it (?:looks|seems) like you|thank you for (?:your|the) (?:question|message))\b[^?]*\z"
)
ANSWERED_QUESTION = (
    r"(?s)\A\W{0,3}[^\n?]{8,200}\?[ \t]*\n[^?]{200,}\z"
    r"|\A\W{0,3}[^\n?]{8,200}\?[ \t]*\n.*(?m:^\s*(?:\*|-|\d+\.) +\*\*)"
)
REFERS_TO_TEXT = (
    r"(?i)\A[^\n]*\b(?:following|below|above|this|these|that|those|given|passage|paragraph|article|text|sentences?"
    r"|statements?|code|story|poem|input|options|list|table|data|diagram|figure|email|review|tweet|quote|dialogue"
    r"|conversation)\b"
)
TASK_VERBS = (
    r"add|adapt|alter|analy[sz]e|answer|apply|arrange|ask|assess|assign|assume|balance|brainstorm|build|calculate"
    r"|categori[sz]e|change|check|choose|cite|classify|clean|combine|come up|compare|compile|complete|compose|compute"
    r"|conclude|connect"
    r"|consider|construct|contrast|convert|copy|correct|count|craft|create|cut|debug|decide|deduce|define|delete"
    r"|demonstrate|derive|describe|design|detect|determine|develop|devise|differentiate|discuss|display|divide|do|draft"
    r"|draw|edit|elaborate|eliminate|estimate|evaluate|examine|expand|explain|express|extract|factor|fill|find|fix"
    r"|form|formulate|generate|get|give|group|guess|help|highlight|identify|indicate|link|illustrate|imagine|implement|improve"
    r"|incorporate|infer|insert|interpret|invent|join|judge|label|list|locate|make|mark|match|measure|modify|multiply"
    r"|name|offer|optimi[sz]e|order|organi[sz]e|outline|output|paraphrase|pick|plan|play|point|predict|prepare|present"
    r"|print|process|produce|prove|propose|provide|pull|put|rank|rate|read|rearrange|recall|recommend|reduce|refactor"
    r"|reorganize|repeat|rephrase|replace|reply|report|research|respond|restate|restructure|retrieve|return|reverse|review|revise|reword|rewrite"
    r"|round|run|say|schedule|search|select|separate|share|show|simplify|simulate|sketch|solve|sort|speak|specify|spell"
    r"|split|state|structure|submit|substitute|subtract|suggest|sum|summari[sz]e|take|tell|think|transcribe|transform"
    r"|translate|turn|use|validate|verify|visuali[sz]e|write"
)
ASKS = (
    r"(?im)[?\x{ff1f}\x{bf}]"
    r"|(?:\A|^|[.!:;,(\"]\s*|- *|\b(?:please|then|and|you|also|just|task is|goal is|you to)\s+(?:to )?)"
    rf"(?:{TASK_VERBS}|what|which|who|whose|when|where|why|how|can you|could you|would you|will you|is|are|does|did)\b"
    r"|\b(?:give|tell|show|send|write|make|help) me\b"
    r"|\b(?:i|we|you)(?:'d| would| am| are|'m|'re)?"
    r" (?:need|want|like|looking|require|wonder|have to|trying|must|should)\b"
)
OPENS_A_STATEMENT = (
    r"(?i)\A\W*(?:the|an?|in|on|at|of|for|if|as|when|while|since|because|after|before|let|i|we|he|she|it|they|my|our|his"
    r"|her|its|their|there|this|that|these|those|one|two|three|some|many|most|each|every|both|suppose|import|def|class"
    r"|from|to|note|notice|however|thus|therefore|so|but|and|with|by|you|your|\w+(?:ing|ed|tion))\b"
)
STATEMENT_WORDS = 12  # a shorter text that asks for nothing is a greeting, a wish or a fragment and may be answered
MISSING_FIGURE = (
    r"(?i)\b(?:in|from|on|of|using) the (?:given |accompanying |attached |above )?(?:figure|diagram|picture|image)"
    r"(?: (?:below|above|shown|given|attached|at right))?\b"
    r"|\b(?:figure|diagram|picture|image) (?:below|above|is shown|shown|to the right)\b"
    r"|\bthe (?:given|attached|accompanying) (?:figure|diagram|picture|image|photo)\b"
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
    r"|\b(?:do|did|can)(?:n't|not| not) see (?:the|any|an?|your) (?:\w+ )?(?:problems?|questions?|code|text|images?"
    r"|message|attachment|input|article|list|file)\b"
    r"|\bno (?:specific |actual |clear )?(?:number|question|problem|text|input|code|data|information|image|list"
    r"|sentence|article) (?:(?:was|is|were|has been|have been) )?(?:given|provided|specified|included|attached)\b"
    r"|\byou (?:haven't|have not|didn't|did not|forgot to) (?:actually )?(?:provided?|included?|specif\w+|asked?|given?"
    r"|pasted?|attach\w*|finish\w*)\b"
    r"|\bit (?:seems|appears|looks) (?:like|that|as if|as though) (?:you|your|there|the) ?(?:\w+ ){0,4}?"
    r"(?:cut off|missing|incomplete|unfinished|forgot|accidentally|empty|blank|placeholder|mistake|typo|repeating)\b"
    r"|\bcorrect the response\b"
)
REFUSAL = (
    r"(?i)\A\W*(?:(?:i'?m|i am|we are) (?:(?:really|very|so|truly) )?(?:sorry|afraid|unable|not able|not capable)"
    r"|sorry\b|unfortunately,? i\b|my apologies|i (?:apologi[sz]e|cannot|can't|can not|am not able|am unable)\b"
    r"|i (?:won't|will not|do not|don't) (?:be able|help|assist|provide|do that|answer"
    r"|have (?:the|any|access|information|enough|personal))\b"
    r"|as an? (?:ai|artificial|large|language|chatbot|virtual|assistant)\b[^.\n]*\b(?:not|cannot|can't|don't|unable)\b"
    r"|i(?:'m| am) (?:(?:just|only) )?an? (?:ai|artificial|large language|language model|chatbot|machine)\b)"
)
PIVOT = (
    r"(?i)\b(?:however|nevertheless|that said|instead|generally|typically|for example|according to|based on|could be"
    r"|as of"
    r"|here (?:is|are)|here's|but (?:i can|i'd|i would|some)|some (?:possible|of)|one (?:possible|option|way)"
    r"|i can (?:provide|give|offer|suggest|help|tell|share|generate|explain|describe))\b"
)
FILLER = (
    r"(?i)\A\W*(?:(?:sure|ok|okay|certainly|of course|absolutely|great|alright|i see|understood|got it|let me know"
    r"|i hope (?:this|that) helps|here (?:it is|you go)|no problem|done)\W*){1,3}\z"
)
ASKS_FOR_PROSE = (
    r"(?i)\A\W*(?:(?:please|can you|could you) )*(?:explain|describe|discuss|elaborate|compose|outline"
    r"|(?:write|generate|create|draft|tell)(?: me)? (?:(?:an?|the) )?(?:\w+ ){0,2}(?:essay|story|poem|article|paragraph"
    r"|letter|email|speech|review|summary|song|report|blog post))\b"
)
PROSE_WORDS = 4
ECHO_SHINGLE = 5


def empty(rows: Features, side: Side) -> Floats:
    """Words of a text, placeholders such as "<noinput>" counting as none."""
    return np.where(rows.contains(side, PLACEHOLDER), 0.0, rows.word_counts(side))


def carries_solution(rows: Features) -> Floats:
    """Marks of a worked solution or of an answered question in the instruction."""
    answered = rows.contains("instruction", ANSWERED_QUESTION) & ~rows.contains("instruction", REFERS_TO_TEXT)
    return rows.matches("instruction", WORKED_SOLUTION) + rows.matches("instruction", STATED_ANSWER) + answered


def is_an_answer(rows: Features) -> Floats:
    """1 where the instruction opens as an assistant does and asks nothing."""
    return rows.matches("instruction", ASSISTANT_OPENING)


def states_no_task(rows: Features) -> Floats:
    """1 where an instruction of some length has no question, no imperative and no wish.

    An unknown first word may be an imperative: only openings that no imperative has count.
    """
    long = rows.word_counts("instruction") >= STATEMENT_WORDS
    states = rows.contains("instruction", OPENS_A_STATEMENT) & ~rows.contains("instruction", ASKS)
    return (long & states).astype(np.float64)


def lacks_its_figure(rows: Features) -> Floats:
    """1 where the instruction speaks of a figure that is not in it."""
    missing = rows.contains("instruction", MISSING_FIGURE) & ~rows.contains("instruction", FIGURE)
    return missing.astype(np.float64)


def echo_similarity(rows: Features) -> Floats:
    """How much the response is the instruction again: Jaccard similarity of their sets of 5-word shingles, 0..1.

    NaN where the lengths alone exclude an echo, and where the instruction has under three words: a greeting may be
    answered by the same greeting.
    """
    asked, answered = rows.word_counts("instruction"), rows.word_counts("response")
    alike = np.minimum(asked, answered) >= np.maximum(asked, answered) * rows.spec.max_echo_similarity / 4
    places = np.flatnonzero(alike & (asked >= 3))
    similarity = np.full(len(rows), np.nan)
    similarity[places] = _jaccard(*(hash_words(rows.text(side).gather(places).to_list()) for side in SIDES))
    return similarity


def talks_about_message(rows: Features) -> Floats:
    """Phrases by which a response speaks of the request, its form or its gaps and leaves the task."""
    return rows.matches("response", TALK_ABOUT_MESSAGE)


def refuses_harmless_task(rows: Features) -> Floats:
    """1 where the response opens with a refusal, does not go on to the task, and nothing harmful was asked."""
    refused = rows.contains("response", REFUSAL)
    refused = rows.lacking("response", PIVOT, refused)
    return rows.lacking("instruction", HARMFUL_REQUEST, refused).astype(np.float64)


def trivial_answer(rows: Features) -> Floats:
    """1 where the response is a polite filler, or a word or two where prose was asked for."""
    asked = rows.contains("instruction", ASKS_FOR_PROSE) & ~rows.contains("instruction", r"(?i)\bwords?\b")
    short = (rows.word_counts("response") < PROSE_WORDS) & asked
    return (rows.contains("response", FILLER) | short).astype(np.float64)


def _jaccard(first: Words, second: Words) -> Floats:
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
