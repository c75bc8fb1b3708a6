"""Measure the quality of the embedded models on generated instructions and the validation split, never on test."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synth_assets.embedded.items import generation_items
from synth_assets.embedded.reward_model import score_responses
from synth_assets.embedded.sampling import Sample, sample_instructions, sample_responses
from synth_assets.embedded.task import Task
from synth_assets.embedded.tokenizer import load_tokenizer
from synth_assets.embedded.verifier import verify
from synth_assets.embedded.world import find

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

INVENTED = 1_000
CHOICES = 4


@dataclass(frozen=True)
class Quality:
    """A measured rate between 0 and 1, and its sample size."""

    value: float
    n: int


TARGETS = {
    "magpie_unique_rate": 0.88,
    "magpie_parseable_rate": 0.93,
    "magpie_second_batch_new_rate": 0.60,
    "base_strict_rate": 0.10,
    "teacher_selection_gain": 0.08,
    "student_selection_gain": 0.05,
}
"""Minimum value of each quality at which the later stages still show an effect."""


def load_causal(folder: Path) -> "LlamaForCausalLM":
    """Load a causal model in float32."""
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def load_reward(folder: Path) -> "LlamaForSequenceClassification":
    """Load a reward model in float32."""
    import torch
    from transformers import LlamaForSequenceClassification

    return LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


def measure(weights: Path, progress: Callable[[str], None]) -> dict[str, Quality]:
    """Measure all qualities of the models in a folder that holds teacher, base, reward and the reference student.

    Returns:
        Name -> quality. `magpie_*` describes instructions that the teacher generates at temperature 1. `*_strict_rate`
        and `*_lenient_rate` are rates of greedy answers to validation items. For four answers sampled at temperature 1,
        `*_first_rate`, `*_selected_rate` and `*_possible_rate` are the rates of strictly correct answers of the first
        one, the one that the reward model prefers, and the best one.
    """
    tokenizer = load_tokenizer(weights / "teacher")
    models = {name: load_causal(weights / name) for name in ("teacher", "base", "student")}
    items = [_known(item.instruction) for item in generation_items("validation")]
    measured = magpie_qualities(models["teacher"], tokenizer)
    progress("qualities: measured what the teacher invents")
    for name, model in models.items():
        measured |= answer_qualities(name, model, tokenizer, items)
        progress(f"qualities: measured the answers of the {name}")
    reward = load_reward(weights / "reward")
    for name in ("teacher", "student"):
        measured |= selection_qualities(name, reward, models[name], tokenizer, items)
        progress(f"qualities: measured the reward model on answers of the {name}")
    return measured


def as_json(measured: dict[str, Quality]) -> dict[str, dict[str, float]]:
    """Return the qualities as JSON values for a manifest."""
    return {name: asdict(quality) for name, quality in measured.items()}


def _known(instruction: str) -> Task:
    task = find(instruction)
    if task is None:
        raise ValueError(f"the world does not know {instruction!r}")
    return task


def magpie_qualities(teacher: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast") -> dict[str, Quality]:
    """Measure two batches of generated instructions: unique, known to the world, new in the second batch."""
    first, second = (
        [sample.text.strip() for sample in sample_instructions(teacher, tokenizer, INVENTED, seed=seed)]
        for seed in (11, 12)
    )
    unique = set(first)
    return {
        "magpie_unique_rate": Quality(len(unique) / INVENTED, INVENTED),
        "magpie_parseable_rate": Quality(sum(find(text) is not None for text in first) / INVENTED, INVENTED),
        "magpie_second_batch_new_rate": Quality(len(set(second) - unique) / INVENTED, INVENTED),
    }


def answer_qualities(
    name: str, model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", items: Sequence[Task]
) -> dict[str, Quality]:
    """Measure greedy answers; an unfinished answer is not strictly correct."""
    samples = sample_responses(model, tokenizer, [task.instruction for task in items], temperature=0.0, seed=0)
    verdicts = [verify(task, sample.text) for task, sample in zip(items, samples, strict=True)]
    strict = sum(verdict.strict and sample.finished for verdict, sample in zip(verdicts, samples, strict=True))
    return {
        f"{name}_strict_rate": Quality(strict / len(items), len(items)),
        f"{name}_lenient_rate": Quality(sum(verdict.lenient for verdict in verdicts) / len(items), len(items)),
    }


def selection_qualities(
    name: str,
    reward: "LlamaForSequenceClassification",
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    items: Sequence[Task],
) -> dict[str, Quality]:
    """Measure the reward model's choice among four sampled answers against the first and the best answer."""
    instructions = [task.instruction for task in items]
    tries = [sample_responses(model, tokenizer, instructions, temperature=1.0, seed=seed) for seed in range(CHOICES)]
    pairs = [(text, sample.text) for samples in tries for text, sample in zip(instructions, samples, strict=True)]
    scores = score_responses(reward, tokenizer, pairs)
    first, chosen, possible = 0, 0, 0
    for index, task in enumerate(items):
        right = [_is_right(task, samples[index]) for samples in tries]
        ranks = [scores[index + number * len(items)] for number in range(CHOICES)]
        first, possible = first + right[0], possible + any(right)
        chosen += right[max(range(CHOICES), key=ranks.__getitem__)]
    n = len(items)
    return {
        f"{name}_first_rate": Quality(first / n, n),
        f"{name}_selected_rate": Quality(chosen / n, n),
        f"{name}_possible_rate": Quality(possible / n, n),
        f"{name}_selection_gain": Quality((chosen - first) / n, n),
    }


def _is_right(task: Task, sample: Sample) -> bool:
    return sample.finished and verify(task, sample.text).strict
