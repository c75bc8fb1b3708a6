"""Scores of EleutherAI's lm-eval, offline, on a model that is already in memory."""

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
    """The choice that a model finds most likely (the first of equals), and each choice's log-probability in nats."""

    index: int
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Measurement:
    """What the model wrote, or the text of the choice it finds most likely, and the task's scores, 0..1."""

    response: str
    scores: Mapping[str, float]


def harness_version() -> str:
    """Name and version of the harness, such as "lm-eval 0.4.13"."""
    return f"lm-eval {version('lm-eval')}"


def score_choices(pair: Pair, suite: Suite, items: Sequence[Item], *, batch_size: int) -> list[Choice | str]:
    """What the model chooses for each item, in order; a reason of UNANSWERABLE for an item that it cannot take.

    Args:
        pair: a causal language model, or a PEFT model around one, on its device, and its tokenizer, whose chat
            template is applied where the suite asks for it.
        suite: of kind "choice".
        items: of that suite.
        batch_size: sequences in one forward pass.
    """
    with tempfile.TemporaryDirectory(prefix="lm-eval-") as folder, _quiet():
        write_task(Path(folder), suite, items)
        samples, left_out = _evaluate(pair, suite, [suite.name], Path(folder), batch_size)
    by_id = {sample["doc"]["item_id"]: _choice(sample) for sample in samples}
    return [left_out.get(item.item_id) or by_id[item.item_id] for item in items]


def run_task(
    pair: Pair, suite: Suite, items: Sequence[Item], *, batch_size: int, max_tokens: int
) -> list[Measurement | str]:
    """What lm-eval's own task gives each item, in order; a reason of UNANSWERABLE for one that the model cannot take.

    Args:
        pair: as in `choose`.
        suite: of kind "harness".
        items: of that suite.
        batch_size: sequences in one forward pass. Text that virtual tokens stand before is written one by one: PEFT
            puts them before the padding of a batch, which changes what the model writes.
        max_tokens: of generated text; `--gen_kwargs max_gen_toks=` of the command line.
    """
    task = _task_of(suite)
    alone = task.generates and getattr(getattr(pair[0], "active_peft_config", None), "is_prompt_learning", False)
    with tempfile.TemporaryDirectory(prefix="lm-eval-") as folder, _quiet():
        names = write_tasks(Path(folder), suite, items)
        samples, left_out = _evaluate(pair, suite, names, Path(folder), 1 if alone else batch_size, max_tokens)
    by_id: dict[str, dict[str, SampleResult]] = {}
    for sample in samples:
        by_id.setdefault(sample["doc"]["item_id"], {})[sample["filter"]] = sample
    return [left_out.get(item.item_id) or _measurement(task, by_id[item.item_id]) for item in items]


def write_task(folder: Path, suite: Suite, items: Sequence[Item]) -> Path:
    """Write an lm-eval task of items of kind "choice", which its command line runs too; returns the YAML file."""
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
            "doc_to_text": "prompt",  # columns, not templates: lm-eval compiles a template anew for each item
            "doc_to_target": "answer",
            "doc_to_choice": "choices",
            "target_delimiter": suite.delimiter,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        },
    )


def write_tasks(folder: Path, suite: Suite, items: Sequence[Item]) -> list[str]:
    """Write lm-eval's own tasks with the documents of these items in place of the hub's; returns their names.

    `lm_eval --include_path folder --tasks NAMES` runs the same.
    """
    import lm_eval.tasks

    definitions = Path(lm_eval.tasks.__file__).parent
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(_task_of(suite).definition(item), []).append(item)
    names = []
    for definition, own in grouped.items():
        rows = [{**json.loads(item.answer), "item_id": item.item_id} for item in own]
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
    found = TaskManager(include_path=str(folder), include_defaults=False).load(list(names))
    if suite.task and suite.task.generates:
        for task in found["tasks"].values():
            task.set_config(key="generation_kwargs", value={"max_gen_toks": max_tokens}, update=True)
    lm = bounded_model(arguments, _virtual_tokens(model))
    try:
        results = evaluator.evaluate(
            lm=cast("Any", lm), task_dict=found, bootstrap_iters=0, apply_chat_template=suite.chat
        )
    finally:
        model.train(was_training)
    if results is None or "samples" not in results:
        raise RuntimeError("lm-eval gives samples on rank 0 only; run the evaluation in one process")
    return [sample for name in names for sample in results["samples"][name]], lm.left_out


def _virtual_tokens(model: "PreTrainedModel | PeftModel") -> int:
    """Return how many tokens of the context a prompt-tuning adapter takes."""
    config: Any = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if getattr(config, "is_prompt_learning", False) else 0


def _task_of(suite: Suite) -> HarnessTask:
    if suite.task is None:
        raise ValueError(f"suite {suite.name} of kind {suite.kind} is no task of lm-eval's own")
    return suite.task


def _choice(sample: "SampleResult") -> Choice:
    logprobs = _logprobs(sample)
    return Choice(logprobs.index(max(logprobs)), logprobs)


def _logprobs(sample: "SampleResult") -> tuple[float, ...]:
    return tuple(float(logprob) for logprob, _ in sample["filtered_resps"])


def _measurement(task: HarnessTask, by_filter: "Mapping[str, SampleResult]") -> Measurement:
    first = next(iter(by_filter.values()))
    raw = cast("Mapping[str, Mapping[str, Any]]", by_filter)
    scores = {own: float(raw[behind][name]) for own, (name, behind) in task.metrics.items()}
    if task.generates:
        return Measurement(str(first["resps"][0][0]), scores)
    logprobs = _logprobs(first)
    choice = logprobs.index(max(logprobs))
    asked = cast("Sequence[tuple[str, str]]", first["arguments"])  # context and continuation of each choice
    return Measurement(asked[choice][1].strip(), scores)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's progress bars and its remarks on being given a model; errors still raise and still show."""
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
