"""Compare a GGUF file with Transformers: greedy text of fixed prompts, and perplexity of validation rows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from synth_assets.llm.chat_encoding import encode_chat
from synth_assets.stages.export.llama_cpp import Floats
from synth_assets.storage.blocks import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from synth_assets.training.data import Example

CLOSE_NATS = 0.1
"""Log-probabilities closer than this are a tie within the rounding of f16 weights and activations."""

GREEDY_TOKENS = 64
GREEDY_PROMPTS = 50
MIN_SAME_TEXTS = 49  # of GREEDY_PROMPTS, or each difference is explained
MAX_PERPLEXITY_RATIO = 1.05
"""A quantisation whose perplexity is above this ratio to Transformers' has lost quality. llama.cpp's own figures for
Llama 3 8B are 1.00 (q8_0) and 1.03 (q4_k_m) of f16 (github.com/ggml-org/llama.cpp, tools/perplexity/README.md)."""

BATCH = 10  # prompts
PROGRESS_EVERY = 10
SUBJECTS = (
    *("rain", "gravity", "bread", "Paris", "cats", "chess", "the moon", "music", "trees", "iron", "coffee", "whales"),
    *(
        "glass",
        "paper",
        "bees",
        "clocks",
        "rivers",
        "salt",
        "bicycles",
        "ships",
        "maps",
        "honey",
        "snow",
        "wool",
        "tea",
    ),
)
QUESTIONS = tuple(
    text for name in SUBJECTS for text in (f"Explain {name} in two sentences.", f"Give three facts about {name}.")
)


@dataclass(frozen=True)
class GreedyDifference:
    """The first token at which llama.cpp leaves the greedy text of Transformers.

    Attributes:
        prompt: index of the prompt.
        position: index of the token.
        expected: the token of Transformers, as text.
        actual: the token of llama.cpp, as text.
        gap_nats: log-probability of `expected` minus that of `actual`, under Transformers in float32.
    """

    prompt: int
    position: int
    expected: str
    actual: str
    gap_nats: float

    @property
    def explained(self) -> bool:
        """Return whether the two tokens are a tie within rounding."""
        return abs(self.gap_nats) <= CLOSE_NATS


@dataclass(frozen=True)
class GreedyComparison:
    """Greedy texts of llama.cpp compared with those of Transformers in float32 on the same prompt tokens.

    Attributes:
        prompts: number of prompts.
        tokens: maximum number of tokens of each text.
        differences: the first difference of each text that differs.
    """

    prompts: int
    tokens: int
    differences: list[GreedyDifference] = field(default_factory=list)

    @property
    def same(self) -> int:
        """Return the number of equal texts."""
        return self.prompts - len(self.differences)

    @property
    def passed(self) -> bool:
        """Return whether at least MIN_SAME_TEXTS of GREEDY_PROMPTS texts are equal, or every difference is a tie."""
        enough = self.same * GREEDY_PROMPTS >= MIN_SAME_TEXTS * self.prompts
        return enough or all(entry.explained for entry in self.differences)

    def text(self) -> str:
        """Return the result in words, with the gap of each difference."""
        gaps = ", ".join(f"prompt {d.prompt} token {d.position} ({d.gap_nats:.3f} nats)" for d in self.differences)
        counted = f"same greedy text on {self.same} of {self.prompts} prompts of {self.tokens} tokens"
        return counted + (f"; first differences: {gaps}" if gaps else "")


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of answer tokens of validation rows.

    Attributes:
        value: exp of the mean negative log-probability, in nats.
        ratio: value over that of Transformers in float32.
        largest_nats: largest absolute difference of a token's log-probability from that of Transformers.
        rows: number of rows.
        tokens: number of answer tokens.
    """

    value: float
    ratio: float
    largest_nats: float
    rows: int
    tokens: int

    @property
    def lost_quality(self) -> bool:
        """Return whether the ratio is above MAX_PERPLEXITY_RATIO, or not a number."""
        return not self.ratio <= MAX_PERPLEXITY_RATIO


def perplexity(expected: Floats, actual: Floats, rows: int) -> Perplexity:
    """Compare the (tokens,) log-probabilities of llama.cpp with those of Transformers, in nats."""
    value = math.exp(-float(actual.mean()))
    largest = float(np.abs(actual - expected).max())
    return Perplexity(value, value / math.exp(-float(expected.mean())), largest, rows, len(actual))


def answer_logprobs(network: "PreTrainedModel", examples: "Sequence[Example]") -> Floats:
    """Return the (tokens,) natural log-probabilities of all answer tokens under a model, in order of the examples."""
    import torch

    parts: list[Floats] = []
    for example in examples:
        start = len(example.prompt)
        with torch.inference_mode():
            logits = network(input_ids=torch.tensor([[*example.prompt, *example.answer]])).logits[0, start - 1 : -1]
        scores = logits.double().log_softmax(dim=1)
        parts.append(scores.gather(1, torch.tensor(example.answer)[:, None])[:, 0].numpy())
    return np.concatenate(parts)


class TransformersTexts:
    """Greedy texts of a model in Transformers, and the log-probabilities that explain differences from them."""

    def __init__(self, network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", progress: Progress) -> None:
        """Use a model in evaluation mode."""
        self.network, self.tokenizer, self.progress = network, tokenizer, progress
        own: Any = getattr(network.generation_config, "eos_token_id", None)
        self.end: Any = tokenizer.eos_token_id
        self.ends: set[int] = {self.end, *(own if isinstance(own, list) else [own])} - {None}

    def encode(self, questions: Sequence[str]) -> list[list[int]]:
        """Return the prompt tokens of user messages, by the model's chat template."""
        return [encode_chat(self.tokenizer, [{"role": "user", "content": text}])[0] for text in questions]

    def compare(self, prompts: Sequence[Sequence[int]], texts: Iterator[list[int]], tokens: int) -> GreedyComparison:
        """Compare the greedy texts of another engine with those of this model.

        Args:
            prompts: token ids of each prompt.
            texts: token ids of the other engine's continuation of each prompt.
            tokens: maximum number of tokens of each text.
        """
        other = [self._until_end(row) for row in self._counted(texts, len(prompts))]
        own: list[list[int]] = []
        for start in range(0, len(prompts), BATCH):
            own += self._generate(prompts[start : start + BATCH], tokens)
            self.progress(f"Transformers: {len(own)} of {len(prompts)} greedy texts")
        found = (self._difference(i, *row) for i, row in enumerate(zip(prompts, own, other, strict=True)))
        return GreedyComparison(len(prompts), tokens, [entry for entry in found if entry])

    def _counted(self, texts: Iterator[list[int]], total: int) -> Iterator[list[int]]:
        for number, row in enumerate(texts, start=1):
            if number % PROGRESS_EVERY == 0 or number == total:
                self.progress(f"llama.cpp: {number} of {total} greedy texts")
            yield row

    def _generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        import torch

        width, end = max(map(len, prompts)), self.end
        ids = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        options: dict[str, Any] = {"do_sample": False, "max_new_tokens": tokens, "pad_token_id": end}
        with torch.inference_mode():
            output = self.network.generate(input_ids=ids, attention_mask=mask, **options)  # pyright: ignore[reportCallIssue]
        return [self._until_end(row) for row in output[:, width:].tolist()]

    def _until_end(self, ids: Sequence[int]) -> list[int]:
        """Return the tokens before the end of the turn."""
        return list(takewhile(lambda token: token not in self.ends, ids))

    def _difference(
        self, index: int, prompt: Sequence[int], expected: list[int], actual: list[int]
    ) -> GreedyDifference | None:
        import torch

        position = first_difference(expected, actual)
        if position is None:
            return None
        with torch.inference_mode():
            known = torch.tensor([[*prompt, *expected[:position]]])
            scores = self.network(input_ids=known).logits[0, -1].double().log_softmax(dim=0)
        first, second = (row[position] if position < len(row) else self.end for row in (expected, actual))
        text, other = (str(self.tokenizer.decode([token])) for token in (first, second))
        return GreedyDifference(index, position, text, other, float(scores[first] - scores[second]))


def first_difference(expected: Sequence[int], actual: Sequence[int]) -> int | None:
    """Return the first index at which two token lists differ, or None if they are equal."""
    if list(expected) == list(actual):
        return None
    shorter = min(len(expected), len(actual))
    return next((index for index in range(shorter) if expected[index] != actual[index]), shorter)
