"""Run a model in an environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

from synth_assets.llm.protocols import Message, Sampling, TextGenerator


@dataclass(frozen=True)
class Episode:
    """A finished episode: its item, the conversation, the reward and its terms, and the suite's scores."""

    item_id: str
    messages: Sequence[Message]
    reward: float
    reward_terms: Mapping[str, float]
    scores: Mapping[str, float | None]


def run_episodes(
    environment: "gymnasium.Env[str, str]", generator: TextGenerator, sampling: Sampling, *, count: int, seed: int
) -> list[Episode]:
    """Run episodes with random items, one after another; the same seed gives the same items and sampling seeds.

    Raises:
        ValueError: a conversation does not fit the context of the model.
    """
    episodes = []
    for number in range(count):
        _, info = environment.reset(seed=seed if number == 0 else None)
        reward, ended = 0.0, False
        while not ended:
            reply = _reply(generator, info, seed + number, sampling)
            _, gained, ended, _, info = environment.step(reply)
            reward += float(gained)
        episodes.append(Episode(info["item_id"], info["messages"], reward, info["reward_terms"], info["scores"]))
    return episodes


def _reply(generator: TextGenerator, info: Mapping[str, Any], seed: int, sampling: Sampling) -> str:
    prompt = generator.encode_chat(info["messages"])
    if len(prompt) >= generator.context_tokens:
        raise ValueError(
            f"{info['item_id']} has {len(prompt)} tokens at turn {info['turn']}, the context {generator.context_tokens}"
        )
    return generator.generate([prompt], [seed + info["turn"]], sampling)[0].text
