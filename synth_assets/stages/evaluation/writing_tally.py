"""Count the tokens that models generate during an evaluation, and the time it takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from synth_assets.evals.scoring import EvaluatedModel
from synth_assets.llm.protocols import Completion, Sampling, TextGenerator


@dataclass
class WritingTally:
    """Number of newly generated tokens, and the seconds of their generation; scoring choices is not included."""

    new_tokens: int = 0
    writing_s: float = 0.0

    def watched(self, model: EvaluatedModel) -> EvaluatedModel:
        """Return the model with a generator whose tokens and seconds are counted here."""
        return replace(model, generator=lambda: cast("TextGenerator", _CountingGenerator(model.generator(), self)))


class _CountingGenerator:
    """A text generator that reports to a tally."""

    def __init__(self, generator: TextGenerator, tally: WritingTally) -> None:
        self._generator, self._tally = generator, tally

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the generator has
        return getattr(self._generator, name)

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        started = time.monotonic()
        completions = self._generator.generate(prompts, seeds, sampling)
        self._tally.writing_s += time.monotonic() - started
        self._tally.new_tokens += sum(completion.completion_tokens for completion in completions)
        return completions
