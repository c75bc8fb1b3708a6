"""Settings of the generation, and the topic and number of turns of each row."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from synth_assets.evals.training_constraints import Asked, draw_constraints
from synth_assets.schemas.settings import setting
from synth_assets.stages.generation.seeds import row_seed

SEEDS = 2**63
FIELDS_SINCE_V2 = ("topics", "topic_weights", "turns", "turn_weights", "constrained_share", "response_attempts")


@dataclass(frozen=True)
class MagpieSpec:
    """Number of instructions and sampling settings.

    Temperatures and top-p follow Magpie (Xu et al. 2024, arXiv 2406.08464): instructions with T 0.8-1.0 and top-p 1.0,
    responses with a lower temperature. Lengths are in tokens of the teacher. With 256 response tokens,
    Llama-3.1-8B-Instruct truncates most responses, and a truncated response is a rejected row.

    Attributes:
        samples: rows of a batch; 0 generates none, so that a run trains on imported rows alone.
        temperature: temperature of user turns.
        response_temperature: temperature of responses.
        top_p: top-p of both.
        max_instruction_tokens: limit of one user turn.
        max_response_tokens: limit of one response.
        seed: seed of the run.
        topics: topic -> system prompt for generating the user turns, as in Magpie's sets for mathematics, code and
            translation (arXiv 2406.08464, section 2); an empty prompt is none. Responses are generated without it,
            because a model trained on the row will not have it. Without topics, no row has a system prompt.
        topic_weights: topic -> relative weight; 1 if not listed.
        turns: maximum number of exchanges of a conversation.
        turn_weights: weights of conversations of 1, 2, ... `turns` exchanges; empty: all have `turns`.
        constrained_share: share of instructions of one exchange that get constraints which a program verifies
            (evals/training_constraints.py), before they are answered.
        response_attempts: maximum number of responses to the user turns of a row. Another one is sampled while the
            last one is truncated, avoids the task or breaks a constraint of its instruction (rejection sampling); the
            last one is kept.
    """

    samples: int = setting(1_500, "Rows of a batch; 0: imported rows alone.")
    temperature: float = setting(1.0, "Sampling temperature of instructions, 0 to 2.")
    response_temperature: float = setting(0.7, "Sampling temperature of responses, 0 to 2.")
    top_p: float = setting(1.0, "Nucleus of the sampling, in (0, 1].")
    max_instruction_tokens: int = setting(256, "Longest instruction, in tokens of the teacher.")
    max_response_tokens: int = setting(1_024, "Longest response, in tokens of the teacher.")
    seed: int = setting(42, "Seed of the batch.")
    topics: Mapping[str, str] = setting(
        {}, "Topic to the system prompt that steers its instructions; an empty prompt is none."
    )
    topic_weights: Mapping[str, float] = setting({}, "Topic to its weight against the others; 1 if not named.")
    turns: int = setting(1, "Most exchanges of a conversation.")
    turn_weights: tuple[float, ...] = setting(
        (), "Weights of conversations of 1, 2, ... exchanges; empty: all have the most."
    )
    constrained_share: float = setting(
        0.0, "Share of instructions that get a constraint which a program verifies, 0 to 1."
    )
    response_attempts: int = setting(
        1, "Maximum number of responses sampled until one is complete and follows its constraints."
    )

    def __post_init__(self) -> None:
        """Raise ValueError with the name of an invalid field."""
        if self.samples < 0:
            raise ValueError(f"MagpieSpec.samples must be at least 0, got {self.samples}")
        for name in ("max_instruction_tokens", "max_response_tokens", "turns", "response_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"MagpieSpec.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("temperature", "response_temperature"):
            if not 0 <= getattr(self, name) <= 2:
                raise ValueError(f"MagpieSpec.{name} must be in [0, 2], got {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"MagpieSpec.top_p must be in (0, 1], got {self.top_p}")
        if not 0 <= self.constrained_share <= 1:
            raise ValueError(f"MagpieSpec.constrained_share must be in [0, 1], got {self.constrained_share}")
        if unknown := sorted(set(self.topic_weights) - set(self.topics)):
            raise ValueError(
                f"MagpieSpec.topic_weights names {', '.join(unknown)}, which MagpieSpec.topics does not have"
            )
        if self.turn_weights and len(self.turn_weights) != self.turns:
            raise ValueError(
                f"MagpieSpec.turn_weights must have {self.turns} weights, one for each number of exchanges, got "
                f"{len(self.turn_weights)}"
            )
        _check_weights("topic_weights", [self.topic_weights.get(topic, 1.0) for topic in self.topics])
        _check_weights("turn_weights", self.turn_weights)


def row_settings(spec: MagpieSpec) -> dict[str, Any]:
    """Return the settings that determine the text of a row: all fields except `samples`.

    Fields added since version 2 are left out if they have their default, so that older rows keep their ids.
    """
    default = asdict(MagpieSpec())
    return {
        name: value
        for name, value in asdict(spec).items()
        if name != "samples" and (name not in FIELDS_SINCE_V2 or value != default[name])
    }


def topic_of(seed: int, spec: MagpieSpec) -> str | None:
    """Return the topic of the row with a seed, independent of other rows and of the order of topics."""
    if not spec.topics:
        return None
    names = sorted(spec.topics)
    return names[_weighted_index(row_seed(seed, "topic", 0), [spec.topic_weights.get(name, 1.0) for name in names])]


def turns_of(seed: int, spec: MagpieSpec) -> int:
    """Return the maximum number of exchanges of the row with a seed."""
    return 1 + _weighted_index(row_seed(seed, "turns", 0), spec.turn_weights) if spec.turn_weights else spec.turns


def constraints_of(seed: int, spec: MagpieSpec) -> list[Asked]:
    """Return the constraints of the row with a seed; empty outside of the constrained share."""
    if not spec.constrained_share or row_seed(seed, "constrained", 0) / SEEDS >= spec.constrained_share:
        return []
    return draw_constraints(row_seed(seed, "constraints", 0))


def _weighted_index(seed: int, weights: Sequence[float]) -> int:
    """Return the index that a seed selects, with a probability proportional to its weight."""
    point = seed / SEEDS * sum(weights)
    indices = [index for index, weight in enumerate(weights) if weight > 0]
    for index in indices:
        point -= weights[index]
        if point < 0:
            return index
    return indices[-1]  # rounding of the sum


def _check_weights(name: str, weights: Sequence[float]) -> None:
    if weights and not (all(isfinite(w) and w >= 0 for w in weights) and sum(weights) > 0):
        raise ValueError(f"MagpieSpec.{name} must be at least 0, with one above 0, got {list(weights)}")
