"""Multi-turn conversations with a model: its reply to each user turn, or the reason why it cannot take them."""

from collections.abc import Sequence

from synth_assets.llm.protocols import Completion, Message, Sampling, TextGenerator
from synth_assets.schemas.tables import CONTEXT_EXCEEDED, TEMPLATE_REFUSED

SHORTEST_REPLY = "."
CONTEXT_FULL = Completion("", "length", 0, 0)
"""Reply to a turn that does not fit the context because of the model's own earlier replies."""


def converse(
    generator: TextGenerator, turns: Sequence[Sequence[str]], seeds: Sequence[int], sampling: Sampling
) -> list[list[Completion] | str]:
    """Return the replies of each conversation, or a reason of UNANSWERABLE if the model cannot take it.

    The user turns are fixed: the next turn does not depend on the reply. Whether the model can take a conversation
    depends on the user turns alone: they must fit the context together with the shortest possible replies. If the
    model's own replies fill the context, its remaining replies are empty and are scored as such.

    Args:
        generator: the model.
        turns: the user turns of each conversation.
        seeds: one seed per conversation.
        sampling: sampling settings of the replies.
    """
    outcomes: list[list[Completion] | str] = [why_unanswerable(generator, user_turns) or [] for user_turns in turns]
    messages: list[list[Message]] = [[] for _ in turns]
    for turn in range(max(map(len, turns), default=0)):
        prompts: dict[int, list[int]] = {}
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, str) or turn >= len(turns[number]):
                continue
            messages[number].append({"role": "user", "content": turns[number][turn]})
            prompt = "" if CONTEXT_FULL in outcome else _prompt(generator, messages[number])
            if isinstance(prompt, list):
                prompts[number] = prompt
            else:
                outcome.append(CONTEXT_FULL)
        replies = generator.generate(list(prompts.values()), [seeds[n] + turn for n in prompts], sampling)
        for number, completion in zip(prompts, replies, strict=True):
            outcome = outcomes[number]
            if not isinstance(outcome, str):
                outcome.append(completion)
            messages[number].append({"role": "assistant", "content": completion.text})
    return outcomes


def why_unanswerable(generator: TextGenerator, user_turns: Sequence[str]) -> str:
    """Return the reason why the model cannot take these turns even with the shortest replies, or an empty string."""
    shortest: list[Message] = []
    for text in user_turns:
        shortest += [{"role": "user", "content": text}, {"role": "assistant", "content": SHORTEST_REPLY}]
    prompt = _prompt(generator, shortest[:-1])
    return prompt if isinstance(prompt, str) else ""


def _prompt(generator: TextGenerator, messages: Sequence[Message]) -> list[int] | str:
    """Return the prompt tokens up to the model's turn, or the reason why it has none."""
    from jinja2 import TemplateError

    try:
        prompt = generator.encode_chat(messages)
    except (TemplateError, ValueError):
        return TEMPLATE_REFUSED
    return prompt if len(prompt) < generator.context_tokens else CONTEXT_EXCEEDED
