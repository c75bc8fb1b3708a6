"""Multiple choice through EleutherAI's lm-eval, offline, on a model that is already in memory."""

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth_assets.benchmarks.suite import Item, Suite

if TYPE_CHECKING:
    from lm_eval.result_schema import SampleResult
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DATA_FILE = "items.jsonl"


@dataclass(frozen=True)
class Choice:
    """The choice that a model finds most likely (the first of equals), and each choice's log-probability in nats."""

    index: int
    logprobs: tuple[float, ...]


def harness_version() -> str:
    """Name and version of the harness, such as "lm-eval 0.4.13"."""
    return f"lm-eval {version('lm-eval')}"


def choose(
    pair: "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]",
    suite: Suite,
    items: Sequence[Item],
    *,
    batch_size: int,
) -> list[Choice]:
    """What the model chooses for each item, in order.

    Args:
        pair: a causal language model, or a PEFT model around one, on its device, and its tokenizer, whose chat
            template is applied where the suite asks for it.
        suite: of kind "choice".
        items: of that suite.
        batch_size: sequences in one forward pass.
    """
    with tempfile.TemporaryDirectory(prefix="lm-eval-") as folder, _quiet():
        write_task(Path(folder), suite, items)
        samples = _evaluate(pair, suite, Path(folder), batch_size)
    by_id = {sample["doc"]["item_id"]: _choice(sample) for sample in samples}
    return [by_id[item.item_id] for item in items]


def write_task(folder: Path, suite: Suite, items: Sequence[Item]) -> Path:
    """Write an lm-eval task of these items, which its command line runs too; returns the YAML file."""
    with (folder / DATA_FILE).open("w", encoding="utf-8") as file:
        for item in items:
            row = {"item_id": item.item_id, "prompt": item.prompt, "choices": item.choices, "answer": int(item.answer)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    task = {
        "task": suite.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / DATA_FILE)}, "cache_dir": str(folder / "cache")},
        "output_type": "multiple_choice",
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "doc_to_choice": "{{choices}}",
        "target_delimiter": suite.delimiter,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    path = folder / f"{suite.name}.yaml"
    path.write_text(json.dumps(task, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def _evaluate(
    pair: "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]", suite: Suite, folder: Path, batch_size: int
) -> "list[SampleResult]":
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = pair
    was_training = model.training
    arguments: dict[str, Any] = {
        "pretrained": model,
        "tokenizer": tokenizer,
        "batch_size": batch_size,
        "backend": "causal",
    }
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    try:
        results = evaluator.evaluate(
            lm=HFLM(**arguments),
            task_dict=tasks.load([suite.name]),
            bootstrap_iters=0,
            apply_chat_template=suite.chat,
        )
    finally:
        model.train(was_training)
    if results is None or "samples" not in results:
        raise RuntimeError("lm-eval gives samples on rank 0 only; run the evaluation in one process")
    return results["samples"][suite.name]


def _choice(sample: "SampleResult") -> Choice:
    logprobs = tuple(float(logprob) for logprob, _ in sample["filtered_resps"])
    return Choice(logprobs.index(max(logprobs)), logprobs)


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
