"""How rows are generated: numbers, topics and turns, and what one row draws of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from synth_assets.evals.training_constraints import Asked, draw_constraints
from synth_assets.schemas.settings import setting
from synth_assets.stages.generation.seeds import row_seed

SEEDS = 2**63
FIELDS_SINCE_V2 = ("topics", "topic_weights", "turns", "turn_weights", "constrained_share")


@dataclass(frozen=True)
class MagpieSpec:
    """How many instructions are made, and how they are drawn.

    The number of samples is that of the study this project grew from; temperatures and nucleus follow Magpie's own
    runs (instruction T 0.8-1.0, top-p 1.0; answers nearer to greedy). Lengths are in tokens of the teacher: of a
    published run of Llama-3.1-8B-Instruct with 256 for answers most were cut, and a cut answer is a lost row.

    Attributes:
        samples: rows of a batch.
        temperature: of the user's turns.
        response_temperature: of the answers.
        top_p: nucleus of both.
        max_instruction_tokens: of one user's turn.
        max_response_tokens: of one answer.
        seed: of the run.
        topics: name -> system prompt under which the user's turns are invented, as Magpie makes its sets for
            mathematics, code and translation (arXiv 2406.08464, section 2); an empty prompt is none. Answers are given
            without it: who trains on the row will not have it either. No topics: every row without a system prompt.
        topic_weights: name -> weight of a topic against the others; 1 where it is not named.
        turns: exchanges of a conversation, at most.
        turn_weights: of conversations of 1, 2, ... `turns` exchanges; empty: all have `turns`.
        constrained_share: of instructions of one exchange, those that get constraints which a program verifies
            (evals/training_constraints.py), before they are answered.
    """

    samples: int = setting(1_500, "Rows of a batch.")
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

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the field."""
        for name in ("samples", "max_instruction_tokens", "max_response_tokens", "turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"MagpieSpec.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("temperature", "response_temperature"):
            if not 0 <= getattr(self, name) <= 2:
                raise ValueError(f"MagpieSpec.{name} is {getattr(self, name)}; it must be within 0 and 2")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"MagpieSpec.top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.constrained_share <= 1:
            raise ValueError(f"MagpieSpec.constrained_share is {self.constrained_share}; it must be within 0 and 1")
        if unknown := sorted(set(self.topic_weights) - set(self.topics)):
            raise ValueError(f"MagpieSpec.topic_weights names {', '.join(unknown)}, of which topics knows no prompt")
        if self.turn_weights and len(self.turn_weights) != self.turns:
            raise ValueError(
                f"MagpieSpec.turn_weights has {len(self.turn_weights)} weights for conversations of 1 to {self.turns} "
                "exchanges; it needs one for each"
            )
        _check_weights("topic_weights", [self.topic_weights.get(topic, 1.0) for topic in self.topics])
        _check_weights("turn_weights", self.turn_weights)


def drawn_by(spec: MagpieSpec) -> dict[str, Any]:
    """What decides the text of a row: all fields but the number of samples.

    Fields that came later are left out where they change nothing, so that rows made before keep their ids.
    """
    default = asdict(MagpieSpec())
    return {
        name: value
        for name, value in asdict(spec).items()
        if name != "samples" and (name not in FIELDS_SINCE_V2 or value != default[name])
    }


def topic_of(seed: int, spec: MagpieSpec) -> str | None:
    """The topic of the row with a seed; the same whatever else is made, and in whatever order topics are written."""
    if not spec.topics:
        return None
    names = sorted(spec.topics)
    return names[_drawn(row_seed(seed, "topic", 0), [spec.topic_weights.get(name, 1.0) for name in names])]


def turns_of(seed: int, spec: MagpieSpec) -> int:
    """How many exchanges the row with a seed is to have, at most."""
    return 1 + _drawn(row_seed(seed, "turns", 0), spec.turn_weights) if spec.turn_weights else spec.turns


def constraints_of(seed: int, spec: MagpieSpec) -> list[Asked]:
    """The constraints of the row with a seed; none where it is not among the constrained share."""
    if not spec.constrained_share or row_seed(seed, "constrained", 0) / SEEDS >= spec.constrained_share:
        return []
    return draw_constraints(row_seed(seed, "constraints", 0))


def _drawn(seed: int, weights: Sequence[float]) -> int:
    """The place that a seed draws with a probability in proportion to its weight."""
    point = seed / SEEDS * sum(weights)
    places = [place for place, weight in enumerate(weights) if weight > 0]
    for place in places:
        point -= weights[place]
        if point < 0:
            return place
    return places[-1]  # rounding of the sum


def _check_weights(name: str, weights: Sequence[float]) -> None:
    if weights and not (all(isfinite(w) and w >= 0 for w in weights) and sum(weights) > 0):
        raise ValueError(f"MagpieSpec.{name} gives the weights {list(weights)}; each is 0 or more, and one is above 0")
