"""Offline scoring with EleutherAI's lm-eval on a model that is already in memory."""

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from synth_assets.evals.lm_eval_model import bounded_model
from synth_assets.evals.suite import HarnessTask, Item, Suite

if TYPE_CHECKING:
    from lm_eval.result_schema import SampleResult
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pair: TypeAlias = "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]"


@dataclass(frozen=True)
class Choice:
    """The most likely choice (the first of equals) and the log-probability of each choice in nats."""

    index: int
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Measurement:
    """The generated text, or the text of the most likely choice, and the task's scores, 0..1."""

    response: str
    scores: Mapping[str, float]


def harness_version() -> str:
    """Return name and version of the harness, such as "lm-eval 0.4.13"."""
    return f"lm-eval {version('lm-eval')}"


def score_choices(pair: Pair, suite: Suite, items: Sequence[Item], *, batch_size: int) -> list[Choice | str]:
    """Return the model's choice for each item, in order, or a reason of UNANSWERABLE if it cannot take the item.

    Args:
        pair: a causal language model, or a PEFT model around one, on its device, and its tokenizer. The chat template
            is applied if the suite asks for it.
        suite: a suite of kind "choice".
        items: items of that suite.
        batch_size: sequences per forward pass.
    """
    with tempfile.TemporaryDirectory(prefix="lm-eval-") as folder, _quiet():
        write_task(Path(folder), suite, items)
        samples, left_out = _evaluate(pair, suite, [suite.name], Path(folder), batch_size)
    by_id = {sample["doc"]["item_id"]: _choice(sample) for sample in samples}
    return [left_out.get(item.item_id) or by_id[item.item_id] for item in items]


def run_task(
    pair: Pair, suite: Suite, items: Sequence[Item], *, batch_size: int, max_tokens: int
) -> list[Measurement | str]:
    """Score each item with lm-eval's own task, in order; a reason of UNANSWERABLE if the model cannot take the item.

    Args:
        pair: as in `score_choices`.
        suite: a suite of kind "harness".
        items: items of that suite.
        batch_size: sequences per forward pass. With virtual tokens, text is generated one prompt at a time: PEFT
            inserts them before the padding of a batch, which changes the output.
        max_tokens: longest generated text; `--gen_kwargs max_gen_toks=` on lm-eval's command line.
    """
    task = _task_of(suite)
    unbatched = task.generates and getattr(getattr(pair[0], "active_peft_config", None), "is_prompt_learning", False)
    with tempfile.TemporaryDirectory(prefix="lm-eval-") as folder, _quiet():
        names = write_tasks(Path(folder), suite, items)
        samples, left_out = _evaluate(pair, suite, names, Path(folder), 1 if unbatched else batch_size, max_tokens)
    by_id: dict[str, dict[str, SampleResult]] = {}
    for sample in samples:
        by_id.setdefault(sample["doc"]["item_id"], {})[sample["filter"]] = sample
    return [left_out.get(item.item_id) or _measurement(task, by_id[item.item_id]) for item in items]


def write_task(folder: Path, suite: Suite, items: Sequence[Item]) -> Path:
    """Write an lm-eval task for items of kind "choice" and return its YAML file; the command line can run it too."""
    rows = [
        {"item_id": item.item_id, "prompt": item.prompt, "choices": item.choices, "answer": int(item.answer)}
        for item in items
    ]
    return _write(
        folder,
        suite.name,
        rows,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",  # a column, not a template: lm-eval recompiles a template for each item
            "doc_to_target": "answer",
            "doc_to_choice": "choices",
            "target_delimiter": suite.delimiter,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        },
    )


def write_tasks(folder: Path, suite: Suite, items: Sequence[Item]) -> list[str]:
    """Write lm-eval's own tasks with the documents of these items in place of the hub's and return their names.

    `lm_eval --include_path folder --tasks NAMES` runs the same tasks.
    """
    import lm_eval.tasks

    definitions = Path(lm_eval.tasks.__file__).parent
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(_task_of(suite).definition(item), []).append(item)
    names = []
    for definition, members in grouped.items():
        rows = [{**json.loads(item.answer), "item_id": item.item_id} for item in members]
        changes = {"include": str(definitions / definition), "dataset_name": None, "fewshot_split": "test"}
        names.append(_write(folder, f"{Path(definition).stem}_items", rows, changes).stem)
    return names


def _write(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> Path:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    local = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "num_fewshot": 0,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({**task, **local}, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def _evaluate(
    pair: Pair, suite: Suite, names: Sequence[str], folder: Path, batch_size: int, max_tokens: int | None = None
) -> "tuple[list[SampleResult], Mapping[str, str]]":
    """Return lm-eval's samples, and the items that the model cannot take: id to reason."""
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    model, tokenizer = pair
    was_training = model.training
    arguments: dict[str, Any] = {
        "pretrained": model,
        "tokenizer": tokenizer,
        "batch_size": batch_size,
        "backend": "causal",
    }
    loaded = TaskManager(include_path=str(folder), include_defaults=False).load(list(names))
    if suite.task and suite.task.generates:
        for task in loaded["tasks"].values():
            task.set_config(key="generation_kwargs", value={"max_gen_toks": max_tokens}, update=True)
    lm = bounded_model(arguments, _virtual_tokens(model))
    try:
        results = evaluator.evaluate(
            lm=cast("Any", lm), task_dict=loaded, bootstrap_iters=0, apply_chat_template=suite.chat
        )
    finally:
        model.train(was_training)
    if results is None or "samples" not in results:
        raise RuntimeError("lm-eval returned no samples; it returns them on rank 0 only. Run it in one process.")
    return [sample for name in names for sample in results["samples"][name]], lm.left_out


def _virtual_tokens(model: "PreTrainedModel | PeftModel") -> int:
    """Return the number of context tokens that a prompt-tuning adapter uses."""
    config: Any = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if getattr(config, "is_prompt_learning", False) else 0


def _task_of(suite: Suite) -> HarnessTask:
    if suite.task is None:
        raise ValueError(f"suite {suite.name} must be of kind harness, got {suite.kind}")
    return suite.task


def _choice(sample: "SampleResult") -> Choice:
    logprobs = _logprobs(sample)
    return Choice(logprobs.index(max(logprobs)), logprobs)


def _logprobs(sample: "SampleResult") -> tuple[float, ...]:
    return tuple(float(logprob) for logprob, _ in sample["filtered_resps"])


def _measurement(task: HarnessTask, by_filter: "Mapping[str, SampleResult]") -> Measurement:
    first = next(iter(by_filter.values()))
    raw = cast("Mapping[str, Mapping[str, Any]]", by_filter)
    scores = {metric: float(raw[filter_name][name]) for metric, (name, filter_name) in task.metrics.items()}
    if task.generates:
        return Measurement(str(first["resps"][0][0]), scores)
    logprobs = _logprobs(first)
    choice = logprobs.index(max(logprobs))
    requests = cast("Sequence[tuple[str, str]]", first["arguments"])  # context and continuation of each choice
    return Measurement(requests[choice][1].strip(), scores)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence lm-eval's progress bars and warnings; errors are still logged and raised."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
