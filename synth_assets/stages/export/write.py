"""Write an export folder atomically: a merged model, a GGUF file or an Ollama model."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth_assets.stages.export.gguf import GGUF_FILE, GreedyDifference, compare_greedy, convert
from synth_assets.stages.export.merge import NOTICES, ExportError, LogitDifference, merge_model
from synth_assets.stages.export.ollama import MODELFILE, modelfile
from synth_assets.storage.atomic import sync_folder_tree
from synth_assets.storage.manifests import MANIFEST, ManifestError, read_manifest, write_manifest

FORMATS = ("merged", "gguf", "ollama")
MADE_BY = "synth export"
GREEDY_TOKENS = 64
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
class ExportSource:
    """What to export: the base model's folder, the LoRA adapter's folder (None: the base alone), and their facts."""

    base: Path
    adapter: Path | None
    facts: Mapping[str, Any]


def export_model(source: ExportSource, kind: str, target: Path, dtype: str = "float16") -> str:
    """Export a model to a folder and return one line with what was measured.

    Raises:
        ExportError: the format is unknown, `target` holds foreign files, a check fails, or the model is unsupported.
    """
    if kind not in FORMATS:
        raise ExportError(f"--to must be one of {', '.join(FORMATS)}, got {kind!r}")
    check_replaceable(target)
    with tempfile.TemporaryDirectory(dir=_existing(target.parent), prefix=".export-") as work:
        merged = Path(work, "merged")
        merged.mkdir()
        difference = merge_model(source.base, source.adapter, merged, dtype, {**source.facts, "made_by": MADE_BY})
        if not difference.passed:
            raise ExportError(f"the merged model differs from the adapter on its base: {logit_text(difference)}")
        text = logit_text(difference)
        if kind == "merged":
            replace_folder(merged, target)
            return text
        differences = write_gguf(
            merged, Path(work, "gguf"), {**source.facts, "made_by": MADE_BY}, ollama=kind == "ollama"
        )
        if unexplained := [entry for entry in differences if not entry.explained]:
            raise ExportError(f"llama.cpp writes other text than Transformers: {greedy_text(unexplained)}")
        replace_folder(Path(work, "gguf"), target)
        return f"{text}; {greedy_text(differences)}"


def write_gguf(
    merged: Path, folder: Path, facts: Mapping[str, Any], *, ollama: bool = False, questions: Sequence[str] = QUESTIONS
) -> list[GreedyDifference]:
    """Write the GGUF file of a merged model to a new folder, compare its greedy text, and return the differences."""
    folder.mkdir()
    if ollama:
        (folder / MODELFILE).write_text(modelfile(merged), "utf-8")
    convert(merged, folder / GGUF_FILE)
    for path in (path for pattern in NOTICES for path in merged.glob(pattern)):
        shutil.copyfile(path, folder / path.name)
    differences = compare_greedy(merged, folder / GGUF_FILE, questions, GREEDY_TOKENS)
    explained = sum(entry.explained for entry in differences)
    counts = {"prompts": len(questions), "different": len(differences), "explained": explained}
    write_manifest(folder, {**facts, "greedy": counts})
    return differences


def logit_text(difference: LogitDifference) -> str:
    """Describe the measured difference of the logits."""
    return (
        f"largest logit difference {difference.relative:.2e} of the largest logit, {difference.tolerance:g} allowed; "
        f"same most likely token at {difference.same_argmax:.1%} of positions"
    )


def greedy_text(differences: Sequence[GreedyDifference], prompts: int = len(QUESTIONS)) -> str:
    """Describe the prompts whose greedy text differs."""
    gaps = ", ".join(f"prompt {d.prompt} token {d.position} ({d.gap_nats:.3f} nats)" for d in differences)
    same = prompts - len(differences)
    return f"same greedy text on {same} of {prompts} prompts" + (f"; first differences: {gaps}" if gaps else "")


def check_replaceable(target: Path) -> None:
    """Raise ExportError unless the folder is missing, empty, or an unchanged earlier export."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        if target.is_dir() and (target / MANIFEST).is_file() and read_manifest(target).get("made_by") == MADE_BY:
            return
    except ManifestError as error:
        raise ExportError(f"{target} was changed since it was exported ({error}): choose another folder") from error
    raise ExportError(f"{target} has files that are no export of this project: choose another folder")


def replace_folder(made: Path, target: Path) -> None:
    """Rename a finished folder to `target`; an earlier export is moved aside first and deleted last."""
    sync_folder_tree(made)
    old = made.with_name("replaced")
    if target.exists():
        target.replace(old)
    made.replace(target)


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
