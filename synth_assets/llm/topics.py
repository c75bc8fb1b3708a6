"""System prompts that steer what a small chat model asks, a name each (Magpie, arXiv 2406.08464, section 2)."""

from collections.abc import Mapping

ROLE = "You are a helpful AI assistant"
SMALL_MODEL_TOPICS: Mapping[str, str] = {
    "any": "",
    "daily_life": f"{ROLE} that answers short questions about daily life, health and food.",
    "facts": f"{ROLE} that answers short questions about nature, history and science.",
    "letters": f"{ROLE} that writes short e-mails, letters and notes.",
    "reasoning": f"{ROLE} that explains simple reasoning and mathematics in words.",
    "code": f"{ROLE} that explains programming ideas in plain words.",
}
"""Phrased like SmolLM2's default system message, which is what `any` leaves to the chat template."""
