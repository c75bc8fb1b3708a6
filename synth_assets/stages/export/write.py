"""Export a version as a merged model and as GGUF files, with what was measured on them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.loading import load_causal_model, load_tokenizer
from synth_assets.llm.weight_files import count_parameters
from synth_assets.schemas.tier import CPU_FLOAT32
from synth_assets.stages.export import llama_cpp
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.folders import check_disk, export_folder
from synth_assets.stages.export.gguf import BYTES_PER_PARAMETER, F16, QUANTISATIONS, convert, gguf_file
from synth_assets.stages.export.gguf_quality import (
    GREEDY_PROMPTS,
    GREEDY_TOKENS,
    QUESTIONS,
    GreedyComparison,
    Perplexity,
    TransformersTexts,
    answer_logprobs,
    perplexity,
)
from synth_assets.stages.export.merge import NOTICES, LogitDifference, check_dtype, merge_model
from synth_assets.stages.export.source import ExportSource
from synth_assets.storage.blocks import Progress
from synth_assets.storage.manifests import content_hash
from synth_assets.training.data import encode_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from synth_assets.training.data import Example

EXPORT_VERSION = 1
"""Part of every request: raise it when the exporter writes other files, so that earlier exports are redone."""

MERGED_BYTES = 2.0  # per parameter, float16 and bfloat16
ROWS = 64

Make = Callable[[Path], Path]
"""Returns the folder that an export is made from; its argument is a folder for the parts to make on the way."""


@dataclass(frozen=True)
class GgufOptions:
    """What to write and to measure.

    Attributes:
        quantisations: values of QUANTISATIONS.
        prompts: number of greedy texts to compare, at most GREEDY_PROMPTS.
        tokens: maximum number of tokens of each.
        rows: maximum number of validation rows of the perplexity.
    """

    quantisations: tuple[str, ...] = QUANTISATIONS
    prompts: int = GREEDY_PROMPTS
    tokens: int = GREEDY_TOKENS
    rows: int = ROWS

    def file_bytes(self, folder: Path) -> float:
        """Return the estimated size of the GGUF files of the model in a folder, f16 included."""
        per_parameter = sum(BYTES_PER_PARAMETER[name] for name in {F16, *self.quantisations})
        return count_parameters(folder) * per_parameter

    def check(self) -> None:
        """Raise ExportError for an unknown quantisation, or none."""
        unknown = [name for name in self.quantisations if name not in QUANTISATIONS]
        if unknown or not self.quantisations:
            known = ", ".join(QUANTISATIONS)
            raise ExportError(f"quantisations must be some of {known}, got {', '.join(unknown) or 'none'}")


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file; `perplexity` is None if there were no validation rows."""

    quantisation: str
    name: str
    bytes: int
    perplexity: Perplexity | None

    def text(self) -> str:
        """Return size and perplexity in words; a file that lost quality is marked."""
        size = f"{self.quantisation} {self.bytes / 1e6:,.1f} MB"
        if self.perplexity is None:
            return f"{size}, perplexity not measured"
        mark = " LOST QUALITY" if self.perplexity.lost_quality else ""
        return f"{size}, perplexity {self.perplexity.value:.3f}, {self.perplexity.ratio:.4f} of Transformers'{mark}"


@dataclass(frozen=True)
class GgufResult:
    """The files of a GGUF export, and how its f16 file compares with Transformers.

    Attributes:
        files: one for each quantisation.
        greedy: greedy texts of the f16 file.
        pre_tokenizer: pre-tokenizer of llama.cpp; "auto" if its converter recognised it.
        adds_bos: llama.cpp adds the beginning-of-text token to each prompt.
    """

    files: list[GgufFile]
    greedy: GreedyComparison
    pre_tokenizer: str
    adds_bos: bool

    def lost_quality(self) -> list[str]:
        """Return the quantisations that lost quality."""
        return [file.quantisation for file in self.files if file.perplexity and file.perplexity.lost_quality]

    def smallest_good(self) -> GgufFile:
        """Return the smallest file that kept quality as far as it was measured, else the largest one."""
        by_size = sorted(self.files, key=lambda file: file.bytes)
        good = (file for file in by_size if file.quantisation not in self.lost_quality())
        return next(good, by_size[-1])

    def lines(self) -> list[str]:
        """Return the result in lines."""
        return [self.greedy.text(), *(file.text() for file in self.files)]


def merged_bytes(folder: Path) -> float:
    """Return the estimated size of the merged weights of the model in a folder."""
    return count_parameters(folder) * MERGED_BYTES


def export_merged(source: ExportSource, target: Path, dtype: str, progress: Progress) -> LogitDifference:
    """Write the base model with the adapter merged into it to a folder, and compare logits.

    Raises:
        ExportError: the logits differ from those of the adapter on its base by more than the tolerance, there is not
            enough disk, or `target` holds foreign files.
    """
    check_dtype(dtype)

    def make(new: Path, _work: Path) -> LogitDifference:
        check_disk(target, merged_bytes(source.base_folder), "the merged model")
        progress(f"merging version {source.version} into {source.base} in {dtype}")
        difference = merge_model(source.base_folder, source.adapter_folder, new, dtype)
        if not difference.passed:
            raise ExportError(f"the merged model differs from the adapter on its base: {difference.text()}")
        return difference

    request = {**source.facts(), "format": "merged", "dtype": dtype, "exporter": EXPORT_VERSION}
    return export_folder(target, request, LogitDifference, make, progress)


def export_gguf(
    request: dict[str, object],
    target: Path,
    options: GgufOptions,
    rows: pl.DataFrame,
    make_merged: Make,
    progress: Progress,
) -> GgufResult:
    """Write GGUF files of a merged model to a folder, and compare them with Transformers.

    Args:
        request: JSON values that identify the merged model.
        target: the folder.
        options: what to write and to measure.
        rows: validation rows (SFT_ROWS) of the perplexity; without rows it is not measured.
        make_merged: returns the folder of the merged model.
        progress: gets lines.

    Raises:
        ExportError: a package is missing, llama.cpp does not support the model or its tokenizer, there is not enough
            disk, or `target` holds foreign files.
    """
    options.check()
    llama_cpp.check_installed()
    rows = rows.head(options.rows)
    settings = {"quantisations": list(options.quantisations), "prompts": options.prompts, "tokens": options.tokens}
    measured = {"rows": content_hash(rows), "exporter": EXPORT_VERSION}

    def make(new: Path, work: Path) -> GgufResult:
        merged = make_merged(work)
        check_disk(target, options.file_bytes(merged), "the GGUF export")
        for path in (path for pattern in NOTICES for path in merged.glob(pattern)):
            shutil.copyfile(path, new / path.name)
        return _write_gguf(merged, (new, work), options, rows, progress)

    return export_folder(target, {**request, "format": "gguf", **settings, **measured}, GgufResult, make, progress)


def _write_gguf(
    merged: Path, folders: tuple[Path, Path], options: GgufOptions, rows: pl.DataFrame, progress: Progress
) -> GgufResult:
    new, work = folders
    tokenizer = load_tokenizer(merged)
    f16 = (new if F16 in options.quantisations else work) / gguf_file(F16)
    progress("converting to GGUF in f16")
    name = convert(merged, tokenizer, f16, [*rows["instruction"], *rows["response"]])
    progress(f"{f16.stat().st_size / 1e6:,.1f} MB, pre-tokenizer {name}: splits all texts as the tokenizer does")
    network = load_causal_model(merged, CPU_FLOAT32).eval()
    texts = TransformersTexts(network, tokenizer, progress)
    prompts = texts.encode(QUESTIONS[: options.prompts])
    greedy = texts.compare(prompts, llama_cpp.greedy_tokens(f16, prompts, options.tokens), options.tokens)
    examples = _examples(rows, tokenizer, network)
    expected = answer_logprobs(network, examples) if examples else None
    del network, texts
    files: list[GgufFile] = []
    for quantisation in options.quantisations:
        file = new / gguf_file(quantisation)
        if quantisation != F16:
            llama_cpp.quantise(f16, file, quantisation)
        actual = None if expected is None else llama_cpp.answer_logprobs(file, examples)
        measured = perplexity(expected, actual, len(examples)) if expected is not None and actual is not None else None
        files.append(GgufFile(quantisation, file.name, file.stat().st_size, measured))
        progress(f"{file.name}: written and measured")
    return GgufResult(files, greedy, name, llama_cpp.adds_bos(f16))


def _examples(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", network: "PreTrainedModel") -> "list[Example]":
    context: int = network.config.max_position_embeddings
    return encode_rows(rows, tokenizer, context)
