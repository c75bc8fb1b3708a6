"""Train the embedded reward model: the teacher with a score head, on graded answers to train instructions."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from synth_assets.embedded.answers import flawed_answer, good_answer
from synth_assets.embedded.chat_format import render
from synth_assets.embedded.corpus import draw_distinct_tasks, draw_task
from synth_assets.embedded.language_models import save_model
from synth_assets.embedded.optimization import Optimizers, Ticker
from synth_assets.embedded.reference_student import response_mask
from synth_assets.embedded.sampling import sample_responses
from synth_assets.embedded.task import Task
from synth_assets.embedded.tokenizer import load_tokenizer
from synth_assets.embedded.verifier import quality
from synth_assets.embedded.world import find

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

TEACHER_TEMPERATURES = (0.8, 1.0, 1.2)
STUDENT_TEMPERATURES = (0.8, 1.0, 1.0)
SAMPLED_TASKS = 2_400
SCORE_BATCH = 128

SampledAnswers = dict[str, list[str]]


@dataclass(frozen=True)
class RewardRecipe:
    """Training settings of the reward model, limited by steps.

    Attributes:
        groups: instructions per step, each with 4 or 5 answers.
        invented_rate: share of groups with only programmatically generated answers, no sampled ones.
        language_weight: weight of the language-model loss on strictly correct answers, which preserves knowledge.
    """

    steps: int = 640
    groups: int = 12
    invented_rate: float = 0.35
    language_weight: float = 1.0
    score_penalty: float = 1e-3
    muon_lr: float = 2e-3
    adam_lr: float = 1.5e-3
    weight_decay: float = 0.02
    warm_up_steps: int = 40
    seed: int = 5


REWARD = RewardRecipe()


def sample_answers(
    model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", temperatures: Sequence[float], *, seed: int
) -> SampledAnswers:
    """Sample a model's finished answers to train instructions, one attempt per temperature."""
    instructions = [task.instruction for task in draw_distinct_tasks(Random(seed), SAMPLED_TASKS)]
    answers: SampledAnswers = {instruction: [] for instruction in instructions}
    for offset, temperature in enumerate(temperatures):
        samples = sample_responses(model, tokenizer, instructions, temperature=temperature, seed=seed + offset)
        for instruction, sample in zip(instructions, samples, strict=True):
            if sample.finished:
                answers[instruction].append(sample.text)
    return answers


def pool_answers(files: Sequence[Path]) -> SampledAnswers:
    """Merge the sampled answers of several files by instruction, distinct and sorted."""
    pool: dict[str, set[str]] = {}
    for file in files:
        for instruction, answers in json.loads(file.read_text()).items():
            pool.setdefault(instruction, set()).update(answers)
    return {instruction: sorted(answers) for instruction, answers in sorted(pool.items())}


def draw_group(pool: Mapping[str, Sequence[str]], random: Random, invented_rate: float) -> tuple[Task, list[str]]:
    """Draw a task with 2 to 5 distinct answers: up to 3 sampled ones, a good one and flawed ones."""
    task, sampled = draw_task(random), []
    if random.random() >= invented_rate:
        instruction = random.choice(list(pool))
        known = find(instruction)
        if known is None:
            raise ValueError(f"the world does not know the sampled instruction {instruction!r}")
        task, sampled = known, random.sample(list(pool[instruction]), min(3, len(pool[instruction])))
    answers = [*sampled, good_answer(task, random)]
    missing = max(0, 4 - len(answers)) + (random.random() < 0.3)
    answers += [flawed_answer(task, random) for _ in range(missing)]
    return task, sorted(set(answers))


def train_reward_model(
    teacher_folder: Path, pool: Mapping[str, Sequence[str]], output: Path, progress: Callable[[str], None]
) -> None:
    """Train the reward model from the teacher and save it as bf16 safetensors with its tokenizer."""
    import torch
    from transformers import LlamaForSequenceClassification

    recipe, random = REWARD, Random(REWARD.seed)
    torch.manual_seed(recipe.seed)
    tokenizer = load_tokenizer(teacher_folder)
    tokenizer.padding_side = "right"
    model = LlamaForSequenceClassification.from_pretrained(teacher_folder, num_labels=1, dtype=torch.float32)
    optimizers = Optimizers(model, muon_lr=recipe.muon_lr, adam_lr=recipe.adam_lr, weight_decay=recipe.weight_decay)
    ticker = Ticker(progress, "reward model", recipe.steps, "steps")
    ranked = None
    model.train()
    for step in range(recipe.steps):
        groups = [draw_group(pool, random, recipe.invented_rate) for _ in range(recipe.groups)]
        loss, accuracy = _loss(model, tokenizer, groups, recipe)
        loss.backward()
        optimizers.step(min(1.0, (step + 1) / recipe.warm_up_steps) * (1 - step / recipe.steps))
        ranked = accuracy if ranked is None else 0.97 * ranked + 0.03 * accuracy
        ticker.tick(step + 1, f", {ranked:.3f} of pairs in order")
    save_model(model, teacher_folder, output)


def _loss(
    model: "LlamaForSequenceClassification",
    tokenizer: "PreTrainedTokenizerFast",
    groups: Sequence[tuple[Task, list[str]]],
    recipe: RewardRecipe,
) -> tuple["torch.Tensor", float]:
    """Return the loss and the pairwise accuracy.

    The loss is the Bradley-Terry loss (Ouyang et al. 2022, arXiv 2203.02155, eq. 1) over all pairs of unequal quality
    within a group, with weight 1 per group, plus the language-model loss on strictly correct answers and a small
    penalty on the squared scores.
    """
    import torch

    texts = [render([("user", task.instruction), ("assistant", text)]) for task, answers in groups for text in answers]
    grades = torch.tensor([quality(task, text) for task, answers in groups for text in answers])
    owner = torch.tensor([index for index, (_, answers) in enumerate(groups) for _ in answers])
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False)
    hidden = model.model(**batch).last_hidden_state
    last = batch.attention_mask.sum(dim=1) - 1
    scores = model.score(hidden[torch.arange(len(last)), last])[:, 0]

    better, worse = torch.nonzero((owner[:, None] == owner[None]) & (grades[:, None] > grades[None]), as_tuple=True)
    margins = scores[better] - scores[worse]
    weights = 1.0 / torch.bincount(owner[better], minlength=len(groups))[owner[better]]
    ranking = -(torch.nn.functional.logsigmoid(margins) * weights).sum() / weights.sum()
    accuracy = ((margins > 0) * weights).sum().item() / weights.sum().item()

    labels = batch.input_ids.masked_fill(~response_mask(tokenizer, batch.input_ids), -100)[grades == 2, 1:]
    logits = hidden[grades == 2, :-1] @ model.model.embed_tokens.weight.T
    language = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels)
    return ranking + recipe.language_weight * language + recipe.score_penalty * scores.square().mean(), accuracy


def score_responses(
    model: "LlamaForSequenceClassification", tokenizer: "PreTrainedTokenizerFast", pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Score each (instruction, response) at the end of the assistant's turn; higher is better."""
    import torch

    texts = [render([("user", instruction), ("assistant", response)]) for instruction, response in pairs]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    scores: dict[int, float] = {}
    model.eval()
    with torch.no_grad():
        for at in range(0, len(order), SCORE_BATCH):
            chosen = order[at : at + SCORE_BATCH]
            batch = tokenizer(
                [texts[index] for index in chosen],
                add_special_tokens=False,
                padding=True,
                return_tensors="pt",
                return_token_type_ids=False,
            )
            scores |= dict(zip(chosen, model(**batch).logits[:, 0].tolist(), strict=True))
    return [scores[index] for index in range(len(texts))]
