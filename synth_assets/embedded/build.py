"""Build the embedded models from scratch: tokenizer, teacher, base, samples, reward model and quality measurements.

Each part runs in its own single-threaded process and writes one folder in `<output>/parts-<recipe>` when it completes.
Completed parts are reused. Independent parts run two at a time.
"""

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Queue

from synth_assets.embedded import MODELS
from synth_assets.embedded.language_models import BASE, TEACHER, save_model, train_language_model
from synth_assets.embedded.qualities import as_json, load_causal, measure
from synth_assets.embedded.recipe import recipe_hash, write_manifest
from synth_assets.embedded.reference_student import STUDENT, magpie_rows, train_student
from synth_assets.embedded.reward_model import (
    STUDENT_TEMPERATURES,
    TEACHER_TEMPERATURES,
    pool_answers,
    sample_answers,
    train_reward_model,
)
from synth_assets.embedded.tokenizer import load_tokenizer, train_tokenizer

PROCESSES = 2
POLL_S = 0.5
COST = "cost.json"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """One step of the build: the parts it depends on, and a function of (parts folder, its own folder, progress)."""

    needs: tuple[str, ...]
    make: Callable[[Path, Path, Progress], None]


def _make_tokenizer(parts: Path, folder: Path, progress: Progress) -> None:
    progress("tokenizer: learning the merges")
    train_tokenizer(folder)


def _make_language_model(name: str, parts: Path, folder: Path, progress: Progress) -> None:
    recipe = {"teacher": TEACHER, "base": BASE}[name]
    train_language_model(recipe, name, parts / "tokenizer", folder, progress)


def _make_rows(parts: Path, folder: Path, progress: Progress) -> None:
    progress("student rows: the teacher invents instructions and answers them")
    teacher, tokenizer = load_causal(parts / "teacher"), load_tokenizer(parts / "tokenizer")
    rows = magpie_rows(teacher, tokenizer, asked=STUDENT.asked, rows=STUDENT.rows, seed=31)
    (folder / "rows.json").write_text(json.dumps(rows))


def _make_student(parts: Path, folder: Path, progress: Progress) -> None:
    rows = [(instruction, response) for instruction, response in json.loads((parts / "rows/rows.json").read_text())]
    tokenizer = load_tokenizer(parts / "tokenizer")
    student = train_student(load_causal(parts / "base"), tokenizer, rows, STUDENT, progress)
    save_model(student, parts / "tokenizer", folder)


def _make_answers(
    name: str, temperatures: tuple[float, ...], seed: int, parts: Path, folder: Path, progress: Progress
) -> None:
    progress(f"answers of the {name}: sampling at temperatures {temperatures}")
    model, tokenizer = load_causal(parts / name), load_tokenizer(parts / "tokenizer")
    answers = sample_answers(model, tokenizer, temperatures, seed=seed)
    (folder / "answers.json").write_text(json.dumps(answers))


def _make_reward(parts: Path, folder: Path, progress: Progress) -> None:
    pool = pool_answers([parts / "teacher_answers/answers.json", *sorted(parts.glob("student_answers*/answers.json"))])
    train_reward_model(parts / "teacher", pool, folder, progress)


def _make_qualities(parts: Path, folder: Path, progress: Progress) -> None:
    (folder / "qualities.json").write_text(json.dumps(as_json(measure(parts, progress))))


PARTS: Mapping[str, Part] = {
    "tokenizer": Part((), _make_tokenizer),
    "base": Part(("tokenizer",), partial(_make_language_model, "base")),
    "teacher": Part(("tokenizer",), partial(_make_language_model, "teacher")),
    "rows": Part(("teacher",), _make_rows),
    "teacher_answers": Part(("teacher",), partial(_make_answers, "teacher", TEACHER_TEMPERATURES, 21)),
    "student": Part(("base", "rows"), _make_student),
    "student_answers": Part(("student",), partial(_make_answers, "student", STUDENT_TEMPERATURES, 22)),
    "reward": Part(("teacher_answers", "student_answers"), _make_reward),
    "qualities": Part(("base", "reward"), _make_qualities),
}


def build(output: Path, *, progress: Progress) -> None:
    """Build all embedded models in a folder and write the manifest last.

    An interrupted build resumes with the missing parts, as long as the recipe is unchanged.

    Args:
        output: folder for `teacher`, `base`, `reward` and `manifest.json`.
        progress: receives a line of text every few seconds, with rate and time left.
    """
    recipe = recipe_hash()
    parts = output / f"parts-{recipe[:12]}"
    parts.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    run_parts(PARTS, parts, progress)
    for name in MODELS:
        shutil.rmtree(output / name, ignore_errors=True)
        shutil.copytree(parts / name, output / name, ignore=shutil.ignore_patterns(COST))
    costs = {name: json.loads((parts / name / COST).read_text())["cpu_seconds"] for name in PARTS}
    qualities = json.loads((parts / "qualities/qualities.json").read_text())
    shutil.rmtree(parts)
    write_manifest(output, recipe=recipe, qualities=qualities, cpu_seconds=costs)
    progress(
        f"built in {time.monotonic() - started_s:.0f} s, {sum(costs.values()):.0f} CPU-s; {output / 'manifest.json'}"
    )


def run_parts(wanted: Mapping[str, Part], parts: Path, progress: Progress) -> None:
    """Run the requested parts that are missing, two at a time, after their dependencies."""
    waiting = {name: part for name, part in wanted.items() if not (parts / name / COST).exists()}
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(PROCESSES, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        lines = manager.Queue()
        running: dict[Future[None], str] = {}
        while waiting or running:
            for name in [
                name for name, part in waiting.items() if all((parts / need / COST).exists() for need in part.needs)
            ]:
                running[pool.submit(_run_part, waiting.pop(name).make, parts, name, lines)] = name
            finished, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            _drain(lines, progress)
            for future in finished:
                name = running.pop(future)
                future.result()
                progress(f"{name}: done")


def _run_part(make: Callable[[Path, Path, Progress], None], parts: Path, name: str, lines: "Queue[str]") -> None:
    """Build one part in a hidden folder and rename the folder when it is complete."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    unfinished = parts / f".{name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    make(parts, unfinished, lines.put)
    (unfinished / COST).write_text(json.dumps({"cpu_seconds": round(time.process_time(), 1)}))
    unfinished.rename(parts / name)


def _drain(lines: "Queue[str]", progress: Progress) -> None:
    while True:
        try:
            progress(lines.get_nowait())
        except Empty:
            return
