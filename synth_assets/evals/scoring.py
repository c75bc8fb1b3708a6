"""Benchmark scoring: generate the answers of a model to each item, cache them by block, and score them."""

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
SCORED_ANSWERS = pl.Schema({**ANSWERS, "scores": pl.String})  # of kind "harness": metric to score, as JSON
VERIFIER = "verifier"  # `Metric.harness` of suites that score generated text themselves


@dataclass(frozen=True)
class EvaluationSpec:
    """Settings of an evaluation.

    Attributes:
        temperature: sampling temperature; 0 is greedy, so that a score is a property of the weights.
        top_p: nucleus of the sampling, in (0, 1]; no effect at temperature 0.
        max_tokens: maximum length of an answer in tokens; a truncated one is scored as it is.
        batch_size: sequences per forward pass of a multiple-choice suite.
        validation_items: maximum number of validation items of the first suite, selected by hash; 0 takes all.
        test_items: maximum number of test items per suite, selected by hash; 0 takes all.
        seed: sampling seed; no effect at temperature 0.
    """

    temperature: float = setting(0.0, "Sampling temperature of answers; 0 is greedy.")
    top_p: float = setting(1.0, "Nucleus of the sampling; no effect at temperature 0.")
    max_tokens: int = setting(512, "Maximum length of an answer in tokens; a truncated one is scored as it is.")
    batch_size: int = setting(64, "Sequences per forward pass of a multiple-choice suite.")
    validation_items: int = setting(
        0, "Maximum number of validation items of the first suite, selected by hash; 0: all."
    )
    test_items: int = setting(0, "Maximum number of test items per suite, selected by hash; 0: all.")
    seed: int = setting(42, "Seed of sampled answers.")

    def __post_init__(self) -> None:
        """Validate the settings. Raise ValueError with the name of an invalid field."""
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        for name, lowest in (("max_tokens", 1), ("batch_size", 1), ("validation_items", 0), ("test_items", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate; loaded only if an answer is missing.

    Attributes:
        name: "base", or the name of the adapter asset.
        fingerprint: its value in ITEM_SCORES.
        weights: hash of all model files and of what else affects the output (engine, dtype, quantisation). Cache key of
            the answers.
        engine: name of the text generator, such as "transformers 5.23.0 float32".
        generator: loads the text generator.
        pair: loads (model, tokenizer) for lm-eval.
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
    """Return ITEM_SCORES of one model. Answers cached under the same weights and settings are reused.

    An item that the model cannot take has no score; its `finish_reason` is the reason (UNANSWERABLE).

    Args:
        subject: the model.
        items: BENCHMARK_ITEMS; the spec may limit the items of each suite and split.
        spec: evaluation settings.
        folder: cache of answer blocks.
        progress: receives a progress line every few seconds.
        budget: checked before each missing block.

    Raises:
        BudgetError: the budget is used up; finished blocks are kept.
    """
    return _score(subject, items_of(choose_items(items, spec)), spec, folder, progress, budget)


def _score(
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
        suite_items = [item for item in items if item.suite == name]
        blocks = {"generation": _generation_blocks, "choice": _choice_blocks, "harness": _harness_blocks}[suite.kind]
        pending, answer = blocks(subject, suite, suite_items, spec)
        what = f"{subject.name} {name} answers"
        paths = compute_blocks(pending, answer, folder, what=what, progress=progress, budget=budget)
        answers = read_blocks(paths, SCORED_ANSWERS if suite.kind == "harness" else ANSWERS)
        rows += _score_rows(subject, suite, suite_items, answers)
    scores = pl.DataFrame(rows, schema=ITEM_SCORES)
    for counted in count_unanswerable(scores):
        progress(unanswerable_text(counted))
    return scores


def choose_items(items: pl.DataFrame, spec: EvaluationSpec) -> pl.DataFrame:
    """Return the items to evaluate: the first of each suite and split by hash, in the order of the table.

    Of the validation split only the items of the first suite, which selects the candidate. Sealed items are never
    included.

    Raises:
        ValueError: there are no items.
    """
    if items.is_empty():
        raise ValueError("benchmark_items is empty: the tier lists no suites, or its suites have no items")
    limits = {"validation": spec.validation_items, "test": spec.test_items}
    items = items.filter(pl.col("split") != SEALED)
    rank = pl.col("item_hash").rank("ordinal").over("suite", "split")
    limit = pl.col("split").replace_strict(limits, return_dtype=pl.UInt32)
    needed = (pl.col("split") == "test") | (pl.col("suite") == items["suite"][0])
    return items.filter(needed & ((limit == 0) | (rank <= limit)))


def sealed_scores(
    subject: EvaluatedModel,
    items: pl.DataFrame,
    spec: EvaluationSpec,
    *,
    folder: Path,
    progress: Progress,
    budget: WorkBudget | None = None,
) -> pl.DataFrame:
    """Return ITEM_SCORES of one model on every sealed item; empty if no suite has sealed items.

    Call this for promotion decisions only: items that are scored more often end up selecting models.

    Args:
        subject: the promotion candidate or its opponent.
        items: BENCHMARK_ITEMS.
        spec: evaluation settings; its item limits do not apply.
        folder: cache of answer blocks.
        progress: receives a progress line every few seconds.
        budget: as in `score_model`.
    """
    return _score(subject, items_of(items.filter(split=SEALED)), spec, folder, progress, budget)


def metrics(scores: pl.DataFrame, *, engines: Mapping[str, str], data_hash: str) -> list[Metric]:
    """Aggregate item scores: one Metric per model, suite, split and metric with a score, in the order of the table.

    Args:
        scores: ITEM_SCORES.
        engines: model name to text generator, such as "transformers 5.23.0".
        data_hash: content hash of the BENCHMARK_ITEMS.
    """
    stored = content_hash(scores)
    aggregated = []
    keys = ["model", "suite", "split", "metric"]
    for (model, name, split, metric), group in scores.group_by(keys, maintain_order=True):
        if not group["score"].count():
            continue
        suite = SUITES[str(name)]
        result = estimate(group["score"].to_list(), group["cluster"].to_list())
        aggregated.append(
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
                mlflow_run_id="",  # set by the tracker
                unanswerable=int(group["finish_reason"].is_in(UNANSWERABLE).sum()),
            )
        )
    return aggregated


def harness_of(suite: Suite, engine: str) -> str:
    """Return the name and version of the harness that scored a suite."""
    return f"{VERIFIER} on {engine}" if suite.kind == "generation" else lm_eval_harness.harness_version()


def _generation_blocks(
    subject: EvaluatedModel, suite: Suite, items: Sequence[Item], spec: EvaluationSpec
) -> tuple[list[Block], Callable[[Sequence[Item]], pl.DataFrame]]:
    sampling = Sampling(temperature=spec.temperature, top_p=spec.top_p, max_tokens=spec.max_tokens)
    load = cache(subject.generator)

    def answer(block: Sequence[Item]) -> pl.DataFrame:
        seeds = [int(fingerprint(spec.seed, item.item_hash)[:15], 16) for item in block]
        results = converse(load(), [suite.turns(item) for item in block], seeds, sampling)
        responses = ["" if isinstance(result, str) else joined([reply.text for reply in result]) for result in results]
        return _answers(
            block, responses, [result if isinstance(result, str) else _finish_reason(result) for result in results]
        )

    settings = {"sampling": asdict(sampling), "seed": spec.seed, "shots": suite.shots}
    return _blocks(subject, settings, items), answer


def _choice_blocks(
    subject: EvaluatedModel, suite: Suite, items: Sequence[Item], spec: EvaluationSpec
) -> tuple[list[Block], Callable[[Sequence[Item]], pl.DataFrame]]:
    load = cache(subject.pair)

    def answer(block: Sequence[Item]) -> pl.DataFrame:
        choices = lm_eval_harness.score_choices(load(), suite, block, batch_size=spec.batch_size)
        pairs = zip(block, choices, strict=True)
        responses = ["" if isinstance(choice, str) else item.choices[choice.index] for item, choice in pairs]
        return _answers(block, responses, [choice if isinstance(choice, str) else None for choice in choices])

    settings = {"harness": lm_eval_harness.harness_version(), "chat": suite.chat, "delimiter": suite.delimiter}
    return _blocks(subject, settings, items), answer


def _harness_blocks(
    subject: EvaluatedModel, suite: Suite, items: Sequence[Item], spec: EvaluationSpec
) -> tuple[list[Block], Callable[[Sequence[Item]], pl.DataFrame]]:
    load = cache(subject.pair)

    def answer(block: Sequence[Item]) -> pl.DataFrame:
        results = lm_eval_harness.run_task(load(), suite, block, batch_size=spec.batch_size, max_tokens=spec.max_tokens)
        responses = ["" if isinstance(result, str) else result.response for result in results]
        plain = _answers(block, responses, [result if isinstance(result, str) else None for result in results])
        scores = [json.dumps({} if isinstance(result, str) else dict(result.scores)) for result in results]
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
            raise ValueError(f"{subject.name}: expected a cached answer to {item.item_id}, got one to another item")
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
    """Score an empty answer, to find the metrics that do not apply to an excluded item: they are None."""
    return suite.score(item, joined([""] * len(suite.turns(item))))
