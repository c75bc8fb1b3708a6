"""Conversations with a model: its reply to each turn of a user, or the reason why it cannot take the conversation."""

from collections.abc import Sequence

from synth_assets.llm.protocols import Completion, Message, Sampling, TextGenerator
from synth_assets.schemas.tables import CONTEXT_EXCEEDED, TEMPLATE_REFUSED

SHORTEST_REPLY = "."
NO_ROOM = Completion("", "length", 0, 0)
"""The reply to a turn for which the model's own earlier replies left no room."""


def converse(
    generator: TextGenerator, turns: Sequence[Sequence[str]], seeds: Sequence[int], sampling: Sampling
) -> list[list[Completion] | str]:
    """Return the replies in each conversation, or the reason of UNANSWERABLE where the model cannot take it.

    The user says the next turn whatever the reply was. Whether a conversation can be taken is a property of its turns
    alone: it must fit the context with the shortest replies. Where a model's own replies fill the context it replies
    nothing from there on, and is judged by that.

    Args:
        generator: the model.
        turns: what the user says in each conversation.
        seeds: one for each conversation.
        sampling: how replies are drawn.
    """
    outcomes: list[list[Completion] | str] = [why_unanswerable(generator, said) or [] for said in turns]
    messages: list[list[Message]] = [[] for _ in turns]
    for turn in range(max(map(len, turns), default=0)):
        prompts: dict[int, list[int]] = {}
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, str) or turn >= len(turns[number]):
                continue
            messages[number].append({"role": "user", "content": turns[number][turn]})
            prompt = "" if NO_ROOM in outcome else _prompt(generator, messages[number])
            if isinstance(prompt, list):
                prompts[number] = prompt
            else:
                outcome.append(NO_ROOM)
        replies = generator.generate(list(prompts.values()), [seeds[n] + turn for n in prompts], sampling)
        for number, completion in zip(prompts, replies, strict=True):
            outcome = outcomes[number]
            if not isinstance(outcome, str):
                outcome.append(completion)
            messages[number].append({"role": "assistant", "content": completion.text})
    return outcomes


def why_unanswerable(generator: TextGenerator, said: Sequence[str]) -> str:
    """Return why the model cannot take a conversation of these turns, even if it replies as shortly as possible."""
    shortest: list[Message] = []
    for text in said:
        shortest += [{"role": "user", "content": text}, {"role": "assistant", "content": SHORTEST_REPLY}]
    prompt = _prompt(generator, shortest[:-1])
    return prompt if isinstance(prompt, str) else ""


def _prompt(generator: TextGenerator, messages: Sequence[Message]) -> list[int] | str:
    """Return the tokens up to where the model speaks, or why there are none."""
    from jinja2 import TemplateError

    try:
        prompt = generator.encode_chat(messages)
    except (TemplateError, ValueError):
        return TEMPLATE_REFUSED
    return prompt if len(prompt) < generator.context_tokens else CONTEXT_EXCEEDED
