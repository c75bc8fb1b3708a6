"""Patterns of instructions (verbs, questions, requests) and of plain statements."""

from synth_assets.stages.filtering.rules.word_lists import word_list

TASK_VERBS = " ".join(word_list("task_verbs"))
_VERB = "|".join(TASK_VERBS.split())
QUESTION_WORDS = (
    "what|which|who|whose|whom|when|where|why|how|can you|could you|would you|will you|is|are|does|did|do|should"
)
OPTIONS = r"(?m:^\s*\(?[Bb][).:]\s)"  # the second of a list of choices
ASKS = (
    r"(?im)[?\x{ff1f}\x{bf}]"
    r"|(?:\A|^|[.!:;,(\"]\s*|- *|\b(?:please|then|and|you|also|just|task is|goal is|job is|you to|you will|asked to)\s+"
    rf"(?:to )?)(?:{_VERB})\b"
    rf"|(?:\A|^|[.!:;(\"]\s*|- *|\b(?:please|and|also|tell me|explain|find|determine)\s+)(?:{QUESTION_WORDS})\b"
    rf"|{OPTIONS}|,\s*(?:what|how)\b|\b(?:give|tell|show|send|write|make|help) me\b"
    r"|\b(?:i|we|you)(?:'d| would| am| are|'m|'re)?"
    r" (?:need|want|like|looking|require|wonder|have to|trying|must|should)\b"
)
ENDS_WITH_A_REQUEST = rf"(?i)(?:\A|[.?!:]\s+|\n)(?:please )?(?:{_VERB}|{QUESTION_WORDS})\b[^.?!\n]*[.?!]*\s*\z"
OPENS_A_STATEMENT = (
    r"(?i)\A\W*(?:(?:the|an?|in|on|at|of|for|if|as|when|while|since|because|after|before|let|i|we|he|she|it|they|my|our|his"
    r"|her|its|their|there|this|that|these|those|one|two|three|some|many|most|each|every|both|suppose|import|def|class"
    r"|from|to|note|notice|however|thus|therefore|so|but|and|with|by|you|your|\w+(?:ing|ed|tion))\b"
    r"|(?:\w+ ){1,3}(?:is|are|was|were|has|have|had|can|will|may|must|consists?|contains?)\b)"
)
STATEMENT_WORDS = 12  # a shorter text without a request is a greeting, a wish or a fragment, which may be answered
REFERS_TO_TEXT = (
    r"(?i)\A[^\n]*\b(?:following|below|above|this|these|those|the given|passage|paragraph|article|text|sentences?"
    r"|statements?|code|story|poem|input|options|list|table|data|diagram|figure|email|review|tweet|quote|dialogue"
    r"|conversation|scenario|situation|phrase)\b"
)
"""The text after the first line is then the task's input, not its answer."""
