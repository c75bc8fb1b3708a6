"""Export a GGUF file as an Ollama model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from synth_assets.llm.loading import load_tokenizer
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.folders import export_folder, link_or_copy
from synth_assets.stages.export.gguf import QUANTISATIONS
from synth_assets.stages.export.gguf_quality import GreedyComparison
from synth_assets.stages.export.merge import NOTICES
from synth_assets.stages.export.ollama import CONVERSATIONS, MODELFILE, chat_pieces, modelfile
from synth_assets.stages.export.write import EXPORT_VERSION, GgufFile, GgufResult
from synth_assets.storage.blocks import Progress

SMALLEST_GOOD = "smallest-good"
"""The smallest file that kept quality."""


@dataclass(frozen=True)
class GgufParts:
    """A finished GGUF export.

    Attributes:
        tokenizer: folder with the tokenizer and its chat template.
        folder: folder of the GGUF files.
        result: what was measured on them.
    """

    tokenizer: Path
    folder: Path
    result: GgufResult


@dataclass(frozen=True)
class OllamaResult:
    """An Ollama model.

    Attributes:
        file: the GGUF file that it runs.
        modelfile: text of its Modelfile.
        conversations: number of conversations whose prompt equals that of the chat template.
        greedy: greedy texts of the f16 file that it was made from.
    """

    file: GgufFile
    modelfile: str
    conversations: int
    greedy: GreedyComparison

    def lines(self) -> list[str]:
        """Return the result in lines."""
        same = f"the Modelfile's template renders {self.conversations} of {CONVERSATIONS} conversations as the model's"
        return [self.greedy.text(), self.file.text(), same]


def export_ollama(
    request: dict[str, object],
    target: Path,
    quantisation: str,
    make_gguf: Callable[[Path], GgufParts],
    progress: Progress,
) -> OllamaResult:
    """Write a Modelfile and the GGUF file that it names to a folder.

    Args:
        request: JSON values that identify the GGUF files.
        target: the folder.
        quantisation: a quantisation of the GGUF export, or SMALLEST_GOOD.
        make_gguf: returns the GGUF export; its argument is a folder for the parts to make on the way.
        progress: gets lines.

    Raises:
        ExportError: the chat template cannot be written in Go's syntax, there is no such quantisation, or `target`
            holds foreign files.
    """
    check_quantisation(quantisation)

    def make(new: Path, work: Path) -> OllamaResult:
        parts = make_gguf(work)
        file = _chosen(parts.result, quantisation)
        tokenizer = load_tokenizer(parts.tokenizer)
        pieces = chat_pieces(tokenizer)
        text = modelfile(pieces, file.name, str(tokenizer.eos_token or ""), adds_bos=parts.result.adds_bos)
        (new / MODELFILE).write_text(text, "utf-8")
        for path in (parts.folder / file.name, *(p for pattern in NOTICES for p in parts.folder.glob(pattern))):
            link_or_copy(path, new / path.name)
        progress(f"wrote {MODELFILE} for {file.name}")
        return OllamaResult(file, text, CONVERSATIONS, parts.result.greedy)

    identity = {"format": "ollama", "quantisation": quantisation, "exporter": EXPORT_VERSION}
    return export_folder(target, {**request, **identity}, OllamaResult, make, progress)


def check_quantisation(name: str) -> None:
    """Raise ExportError unless a name is a quantisation or SMALLEST_GOOD."""
    if name not in (*QUANTISATIONS, SMALLEST_GOOD):
        raise ExportError(f"quantisation must be one of {', '.join(QUANTISATIONS)} or {SMALLEST_GOOD}, got {name!r}")


def _chosen(result: GgufResult, quantisation: str) -> GgufFile:
    if quantisation == SMALLEST_GOOD:
        return result.smallest_good()
    for file in result.files:
        if file.quantisation == quantisation:
            return file
    exported = ", ".join(file.quantisation for file in result.files)
    raise ExportError(f"quantisation must be one of {exported} or {SMALLEST_GOOD}, got {quantisation!r}")
