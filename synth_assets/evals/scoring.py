"""Answers of one model to every item, kept block by block, and the scores that suites give them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.evals import lm_eval_harness
from synth_assets.evals.conversations import converse
from synth_assets.evals.suite import SEALED, Item, Suite, items_of, joined
from synth_assets.evals.suites import SUITES
from synth_assets.evals.unanswerable import count_unanswerable, unanswerable_text
from synth_assets.llm.protocols import Completion, Sampling, TextGenerator
from synth_assets.schemas.records import Metric
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.schemas.tables import ITEM_SCORES, UNANSWERABLE
from synth_assets.stats.intervals import estimate
from synth_assets.storage.blocks import Block, Progress, compute_blocks, in_blocks, read_blocks
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.manifests import content_hash

ANSWERS = pl.Schema({"item_hash": pl.String, "response": pl.String, "finish_reason": pl.String})
JUDGED_ANSWERS = pl.Schema({**ANSWERS, "scores": pl.String})  # of kind "harness": metric to score, as JSON
VERIFIED = "verifier"  # how `Metric.harness` calls a suite's own scoring of generated text


@dataclass(frozen=True)
class EvaluationSpec:
    """How models are examined.

    Attributes:
        temperature: 0 is greedy, so that a score is a property of the weights.
        top_p: share of probability kept when drawing; without effect at temperature 0.
        max_tokens: of an answer; a longer one is cut and judged as it stands.
        batch_size: sequences in one forward pass of a multiple-choice suite.
        validation_items: at most so many of the first suite, drawn by hash; 0 takes all.
        test_items: at most so many of each suite, drawn by hash; 0 takes all.
        seed: of the drawing of text where the temperature is above 0.
    """

    temperature: float = setting(0.0, "Sampling temperature of answers; 0 is greedy.")
    top_p: float = setting(1.0, "Nucleus of the sampling; no effect at temperature 0.")
    max_tokens: int = setting(512, "Longest answer in tokens; a truncated one is scored as it is.")
    batch_size: int = setting(64, "Sequences of one forward pass of a multiple-choice suite.")
    validation_items: int = setting(0, "Most validation items of the first suite, selected by hash; 0: all.")
    test_items: int = setting(0, "Most test items of each suite, selected by hash; 0: all.")
    seed: int = setting(42, "Seed of sampled answers.")

    def __post_init__(self) -> None:
        """Refuse what cannot be run; ValueError names the field."""
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be within (0, 1], not {self.top_p}")
        for name, lowest in (("max_tokens", 1), ("batch_size", 1), ("validation_items", 0), ("test_items", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, not {getattr(self, name)}")


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to be examined; it is loaded only when an answer is missing.

    Attributes:
        name: "base", or the adapter asset's name.
        fingerprint: as shown in ITEM_SCORES.
        weights: hash of all files that make the model, with what else shapes its arithmetic (engine, dtype,
            quantisation); answers are kept under it, never under the name.
        engine: what generates its text, such as "transformers 5.23.0 float32".
        generator: makes the model that writes.
        pair: makes (model, tokenizer) for the evaluation lm_eval_harness.
    """

    name: str
    fingerprint: str
    weights: str
    engine: str
    generator: Callable[[], TextGenerator]
    pair: Callable[[], tuple[Any, Any]]


def score_model(
    subject: EvaluatedModel,
    items: pl.DataFrame,
    spec: EvaluationSpec,
    *,
    folder: Path,
    progress: Progress,
    budget: WorkBudget | None = None,
) -> pl.DataFrame:
    """ITEM_SCORES of one model; answers that exist under the same weights and settings are not made again.

    An item that the model cannot take has no score; its `finish_reason` says why (UNANSWERABLE).

    Args:
        subject: the model.
        items: BENCHMARK_ITEMS; the spec may take a part of each suite and split.
        spec: how it is examined.
        folder: where blocks of answers are kept.
        progress: receives a line each few seconds.
        budget: is asked before each missing block.

    Raises:
        BudgetError: the limit is reached; finished blocks are kept.
    """
    return _ask(subject, items_of(choose_items(items, spec)), spec, folder, progress, budget)


def _ask(
    subject: EvaluatedModel,
    items: Sequence[Item],
    spec: EvaluationSpec,
    folder: Path,
    progress: Progress,
    budget: WorkBudget | None,
) -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(item.suite for item in items):
        suite = SUITES[name]
        asked = [item for item in items if item.suite == name]
        blocks = {"generation": _generation_blocks, "choice": _choice_blocks, "harness": _harness_blocks}[suite.kind]
        todo, answer = blocks(subject, suite, asked, spec)
        what = f"{subject.name} {name} answers"
        shards = compute_blocks(todo, answer, folder, what=what, progress=progress, budget=budget)
        answers = read_blocks(shards, JUDGED_ANSWERS if suite.kind == "harness" else ANSWERS)
        rows += _score_rows(subject, suite, asked, answers)
    scores = pl.DataFrame(rows, schema=ITEM_SCORES)
    for counted in count_unanswerable(scores):
        progress(unanswerable_text(counted))
    return scores


def choose_items(items: pl.DataFrame, spec: EvaluationSpec) -> pl.DataFrame:
    """The items that the spec asks for: of each suite and split the first by hash, in the table's order.

    Of the validation split only those of the first suite, by which the candidate is chosen: nothing reads the others.
    Never a sealed one.

    Raises:
        ValueError: there are none.
    """
    if items.is_empty():
        raise ValueError("benchmark_items is empty: the tier's row lists no suites, or they have no items")
    limits = {"validation": spec.validation_items, "test": spec.test_items}
    items = items.filter(pl.col("split") != SEALED)
    place = pl.col("item_hash").rank("ordinal").over("suite", "split")
    limit = pl.col("split").replace_strict(limits, return_dtype=pl.UInt32)
    deciding = (pl.col("split") == "test") | (pl.col("suite") == items["suite"][0])
    return items.filter(deciding & ((limit == 0) | (place <= limit)))


def sealed_scores(
    subject: EvaluatedModel,
    items: pl.DataFrame,
    spec: EvaluationSpec,
    *,
    folder: Path,
    progress: Progress,
    budget: WorkBudget | None = None,
) -> pl.DataFrame:
    """ITEM_SCORES of one model on every sealed item; empty where no suite has any.

    Called where a promotion is decided and nowhere else: what is asked more often ends by choosing models.

    Args:
        subject: a promotion's candidate or opponent.
        items: BENCHMARK_ITEMS.
        spec: how it is examined; its limits of items do not apply.
        folder: where blocks of answers are kept.
        progress: receives a line each few seconds.
        budget: as in `score_model`.
    """
    return _ask(subject, items_of(items.filter(split=SEALED)), spec, folder, progress, budget)


def metrics(scores: pl.DataFrame, *, engines: Mapping[str, str], data_hash: str) -> list[Metric]:
    """One Metric for each model, suite, split and metric with at least one score, in the table's order.

    Args:
        scores: ITEM_SCORES, the only source of value, n and interval.
        engines: model to what generated its text, such as "transformers 5.23.0".
        data_hash: content hash of the BENCHMARK_ITEMS they were measured on.
    """
    stored = content_hash(scores)
    found = []
    keys = ["model", "suite", "split", "metric"]
    for (model, name, split, metric), group in scores.group_by(keys, maintain_order=True):
        if not group["score"].count():
            continue
        suite = SUITES[str(name)]
        result = estimate(group["score"].to_list(), group["cluster"].to_list())
        found.append(
            Metric(
                model=str(model),
                suite=suite.name,
                split=str(split),
                metric=str(metric),
                value=result.value,
                n=result.n,
                ci_low=result.low,
                ci_high=result.high,
                interval=result.method,
                shots=suite.shots,
                harness=harness_of(suite, engines[str(model)]),
                data_hash=data_hash,
                items_sha256=stored,
                mlflow_run_id="",  # the tracker's to fill
                unanswerable=int(group["finish_reason"].is_in(UNANSWERABLE).sum()),
            )
        )
    return found


def harness_of(suite: Suite, engine: str) -> str:
    """What measured a suite, with version."""
    return f"{VERIFIED} on {engine}" if suite.kind == "generation" else lm_eval_harness.harness_version()


def _generation_blocks(
    subject: EvaluatedModel, suite: Suite, items: Sequence[Item], spec: EvaluationSpec
) -> tuple[list[Block], Callable[[Sequence[Item]], pl.DataFrame]]:
    sampling = Sampling(temperature=spec.temperature, top_p=spec.top_p, max_tokens=spec.max_tokens)
    load = cache(subject.generator)

    def answer(block: Sequence[Item]) -> pl.DataFrame:
        seeds = [int(fingerprint(spec.seed, item.item_hash)[:15], 16) for item in block]
        outcomes = converse(load(), [suite.turns(item) for item in block], seeds, sampling)
        responses = ["" if isinstance(one, str) else joined([reply.text for reply in one]) for one in outcomes]
        return _answers(block, responses, [one if isinstance(one, str) else _finish_reason(one) for one in outcomes])

    settings = {"sampling": asdict(sampling), "seed": spec.seed, "shots": suite.shots}
    return _blocks(subject, settings, items), answer


def _choice_blocks(
    subject: EvaluatedModel, suite: Suite, items: Sequence[Item], spec: EvaluationSpec
) -> tuple[list[Block], Callable[[Sequence[Item]], pl.DataFrame]]:
    load = cache(subject.pair)

    def answer(block: Sequence[Item]) -> pl.DataFrame:
        found = lm_eval_harness.score_choices(load(), suite, block, batch_size=spec.batch_size)
        pairs = zip(block, found, strict=True)
        responses = ["" if isinstance(choice, str) else item.choices[choice.index] for item, choice in pairs]
        return _answers(block, responses, [choice if isinstance(choice, str) else None for choice in found])

    settings = {"harness": lm_eval_harness.harness_version(), "chat": suite.chat, "delimiter": suite.delimiter}
    return _blocks(subject, settings, items), answer


def _harness_blocks(
    subject: EvaluatedModel, suite: Suite, items: Sequence[Item], spec: EvaluationSpec
) -> tuple[list[Block], Callable[[Sequence[Item]], pl.DataFrame]]:
    load = cache(subject.pair)

    def answer(block: Sequence[Item]) -> pl.DataFrame:
        found = lm_eval_harness.run_task(load(), suite, block, batch_size=spec.batch_size, max_tokens=spec.max_tokens)
        responses = ["" if isinstance(measured, str) else measured.response for measured in found]
        plain = _answers(block, responses, [one if isinstance(one, str) else None for one in found])
        scores = [json.dumps({} if isinstance(one, str) else dict(one.scores)) for one in found]
        return plain.with_columns(pl.Series("scores", scores, dtype=pl.String))

    settings = {
        "harness": lm_eval_harness.harness_version(),
        "task": suite.name,
        "chat": suite.chat,
        "shots": suite.shots,
    }
    if suite.task and suite.task.generates:
        settings["max_tokens"] = spec.max_tokens
    return _blocks(subject, settings, items), answer


def _finish_reason(replies: Sequence[Completion]) -> str:
    return "length" if any(completion.finish_reason == "length" for completion in replies) else "stop"


def _blocks(subject: EvaluatedModel, settings: Mapping[str, object], items: Sequence[Item]) -> list[Block]:
    keyed = [fingerprint(subject.weights, settings, [i.item_hash for i in block]) for block in in_blocks(items)]
    return [Block(key, len(block), block) for key, block in zip(keyed, in_blocks(items), strict=True)]


def _answers(items: Sequence[Item], responses: Sequence[str], reasons: Sequence[str | None]) -> pl.DataFrame:
    hashes = [item.item_hash for item in items]
    return pl.DataFrame({"item_hash": hashes, "response": responses, "finish_reason": reasons}, schema=ANSWERS)


def _score_rows(
    subject: EvaluatedModel, suite: Suite, items: Sequence[Item], answers: pl.DataFrame
) -> list[dict[str, object]]:
    rows = []
    for item, answer in zip(items, answers.iter_rows(named=True), strict=True):
        if answer["item_hash"] != item.item_hash:
            raise ValueError(f"{subject.name}: a stored answer to another item stands where {item.item_id} is expected")
        left_out = answer["finish_reason"] in UNANSWERABLE
        scores = _unscored(suite, item) if left_out else _scored(suite, item, answer)
        rows += [
            {
                "model": subject.name,
                "fingerprint": subject.fingerprint,
                "suite": item.suite,
                "split": item.split,
                "item_id": item.item_id,
                "cluster": item.cluster,
                "metric": metric,
                "score": None if left_out else scores[metric],
                "response": answer["response"],
                "finish_reason": None if left_out and scores[metric] is None else answer["finish_reason"],
            }
            for metric in suite.metrics
        ]
    return rows


def _scored(suite: Suite, item: Item, answer: Mapping[str, Any]) -> Mapping[str, float | None]:
    return json.loads(answer["scores"]) if "scores" in answer else suite.score(item, answer["response"])


def _unscored(suite: Suite, item: Item) -> Mapping[str, float | None]:
    """Return the scores of silence: None for metrics that do not apply to the item, which is left out of the rest."""
    return suite.score(item, joined([""] * len(suite.turns(item))))
