"""Patterns of responses that refuse or avoid a task."""

REFUSAL = (
    r"(?i)\A\W*(?:(?:i'?m|i am|we are) (?:(?:really|very|so|truly) )?(?:unable|not able|not capable)"
    r"|(?:(?:i'?m|i am|we are) (?:\w+ )?(?:sorry|afraid)|sorry|my apologies|i apologi[sz]e|unfortunately)\b"
    r"[^.\n]{0,120}?[.,]?[^.\n]{0,80}?"
    r"(?:\b(?:cannot|can not|unable|not able|do not|will not|could not|am not|not possible|an ai)\b|n't\b)"
    r"|i (?:cannot|can't|can not|am not able|am unable)\b"
    r"|i (?:won't|will not|do not|don't) (?:be able|help|assist|provide|do that|answer"
    r"|have (?:the|any|access|information|enough|personal))\b"
    r"|as an? (?:ai|artificial|large|language|chatbot|virtual|assistant)\b[^.\n]*\b(?:not|cannot|can't|don't|unable)\b"
    r"|i(?:'m| am) (?:(?:just|only) )?an? (?:ai|artificial|large language|language model|chatbot|machine)\b"
    r"[^\n]{0,150}(?:\b(?:not|cannot|unable)\b|n't\b))"
)
_DEFLECTION = (
    r"\A\W*(?:(?:no|sure|yes)\W+)?(?:(?:i'?m|i am) (?:so |very )?sorry (?:for|about) (?:the|any|your)"
    r" (?:\w+ )?(?:confusion|mis\w+|mistakes?|inconvenience|loss)\b"
    r"|while (?:i'?m|i am) (?:here to assist|an? (?:ai|chatbot|assistant)\b)[^.\n]{0,80}\b(?:unable|not)\b)"
)
DEFLECTION = f"(?i){_DEFLECTION}"
"""Openings after which small models do not answer, whatever follows, such as "I'm sorry for the confusion"."""
REFUSAL_OR_DEFLECTION = f"{REFUSAL}|{_DEFLECTION}"
