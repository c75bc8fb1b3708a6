"""Rewards of an episode: the score of the suite's program, and declared terms that shape it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from synth_assets.evals.suite import Suite

PROGRAM = "program"  # name of the unshaped term


@dataclass(frozen=True, kw_only=True)
class Shaping:
    """Terms that are added to the score of the suite's program. By default there are none.

    Attributes:
        partial: metric to weight, for partial credit, such as {"constraints": 0.2}; a metric that does not apply to an
            item adds nothing.
        free_characters: length of a reply without penalty.
        length_penalty: reward taken off for each 100 characters beyond it, over all replies.
    """

    partial: Mapping[str, float] = field(default_factory=dict)
    free_characters: int = 0
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        """Validate the terms. Raises ValueError with the field's name."""
        if min(self.free_characters, self.length_penalty) < 0:
            raise ValueError(
                "free_characters and length_penalty must be at least 0, got "
                f"{self.free_characters} and {self.length_penalty}"
            )


def check_shaping(shaping: Shaping, suite: Suite) -> None:
    """Raise ValueError if the shaping names a metric that the suite does not have."""
    if unknown := sorted(shaping.partial.keys() - set(suite.metrics)):
        raise ValueError(f"{suite.name} has no metric {unknown[0]!r}; it has {', '.join(suite.metrics)}")


def reward_terms(
    suite: Suite, shaping: Shaping, scores: Mapping[str, float | None], replies: Sequence[str]
) -> dict[str, float]:
    """Return the terms of an episode's reward, which is their sum.

    Args:
        suite: its first metric is the term "program".
        shaping: further terms; "partial:<metric>" and "length".
        scores: the suite's score of the replies.
        replies: all replies of the episode.

    Raises:
        ValueError: the first metric does not apply to the item.
    """
    score = scores[suite.metrics[0]]
    if score is None:
        raise ValueError(f"{suite.name} must score every item by {suite.metrics[0]}, which decides the reward")
    terms = {PROGRAM: score}
    terms |= {f"partial:{name}": weight * (scores[name] or 0.0) for name, weight in shaping.partial.items()}
    if shaping.length_penalty:
        excess = sum(max(0, len(reply) - shaping.free_characters) for reply in replies)
        terms["length"] = -shaping.length_penalty * excess / 100
    return terms
