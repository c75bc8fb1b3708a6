"""How much text models write while they are examined; each model is kept only as long as it is asked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from synth_assets.evals.scoring import EvaluatedModel
from synth_assets.llm.protocols import Completion, Sampling, TextGenerator


@dataclass
class WritingTally:
    """New tokens of generated text, and the seconds in which they were written; rated choices are not among them."""

    new_tokens: int = 0
    writing_s: float = 0.0

    def watched(self, subject: EvaluatedModel) -> EvaluatedModel:
        """Return the subject with a generator whose tokens and seconds are added up here."""
        return replace(subject, generator=lambda: cast("TextGenerator", _Watched(subject.generator(), self)))


class _Watched:
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
