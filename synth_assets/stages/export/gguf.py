"""Convert a merged model to GGUF with llama.cpp's converter, with a pre-tokenizer that splits text as the model's."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synth_assets.llm.chat_encoding import encode_plain
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.gguf_converter import AUTO
from synth_assets.stages.export.llama_cpp import FILE_TYPES, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

F16 = "f16"
QUANTISATIONS = (F16, *FILE_TYPES)
BYTES_PER_PARAMETER = {F16: 2.0, "q8_0": 34 / 32, "q4_k_m": 0.75}
"""q8_0 stores a 2-byte scale for 32 values; q4_k_m is about 0.6, more where a row is no multiple of 256 values."""

CONVERT_S = 3600
UNRECOGNISED = "pre-tokenizer was not recognized"
PRE_TOKENIZERS = ("smollm", "gpt-2", "llama-bpe", "qwen2")
"""Pre-tokenizers of llama.cpp that are tried on a tokenizer that its converter does not recognise."""

PROBES = (
    "Hello, world! It's 3 o'clock; they've said \"I'll wait\".",
    "Numbers: 7, 42, 1234567, 3.14, 1,000 and 2026-11-28.",
    "  two spaces,\ttab,\n\nblank line,\n   indented\n\n\nthree breaks \n end  ",
    "def f(x):\n    return {'a': [x, None], \"b\": x != 0}\n",
    "Füße, naïve café, ÅNGSTRÖM, Привет, 你好世界, こんにちは, مرحبا, 🙂🚀 and ½ of 10⁻³ €",
    "e-mail@example.org https://example.org/a?b=c&d=%20 #tag ------ ====== ...... !!!???",
)


def gguf_file(quantisation: str) -> str:
    """Return the file name of a quantisation."""
    return f"model-{quantisation}.gguf"


def convert(merged: Path, tokenizer: "PreTrainedTokenizerBase", target: Path, texts: Sequence[str]) -> str:
    """Convert a merged model to a GGUF file in f16; return the name of the pre-tokenizer, or "auto".

    Args:
        merged: folder of the model.
        tokenizer: its tokenizer.
        target: the file.
        texts: texts that llama.cpp must split as the tokenizer does, besides PROBES.

    Raises:
        ExportError: the converter does not support the model, or llama.cpp splits a text differently.
    """
    failure = _run(merged, target, AUTO)
    if not failure:
        if wrong := _different(target, tokenizer, texts):
            raise ExportError(f"llama.cpp splits {wrong!r} differently than the tokenizer: export with --to merged")
        return AUTO
    if UNRECOGNISED not in failure:
        raise ExportError(
            f"llama.cpp's converter rejected {merged.name} ({failure.splitlines()[-1][:300]}): "
            "export with --to merged, or use a base model that llama.cpp supports"
        )
    return _convert_unrecognised(merged, tokenizer, target, texts)


def _convert_unrecognised(
    merged: Path, tokenizer: "PreTrainedTokenizerBase", target: Path, texts: Sequence[str]
) -> str:
    """Convert with the first of PRE_TOKENIZERS that splits all texts as the tokenizer does; return its name."""
    wrong = ""
    for name in PRE_TOKENIZERS:
        if failure := _run(merged, target, name):
            raise ExportError(f"llama.cpp's converter rejected {merged.name} ({failure.splitlines()[-1][:300]})")
        if not (wrong := _different(target, tokenizer, texts)):
            return name
    target.unlink()
    raise ExportError(
        f"llama.cpp has no pre-tokenizer for this tokenizer: {', '.join(PRE_TOKENIZERS)} split {wrong!r} differently. "
        "Export with --to merged, or use a base model whose tokenizer llama.cpp knows"
    )


def _different(file: Path, tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> str:
    """Return the first text that llama.cpp splits differently, shortened; empty if there is none."""
    probes = [*PROBES, *texts]
    expected = (encode_plain(tokenizer, text) for text in probes)
    pairs = zip(probes, expected, token_ids(file, probes), strict=True)
    return next((text[:60] for text, first, second in pairs if first != second), "")


def _run(merged: Path, target: Path, name: str) -> str:
    """Run the converter; return its error output if it failed, else an empty string."""
    command = [sys.executable, "-m", "synth_assets.stages.export.gguf_converter", name, str(merged)]
    done = subprocess.run(
        [*command, "--outfile", str(target), "--outtype", F16],
        capture_output=True,
        text=True,
        timeout=CONVERT_S,
        check=False,
    )
    if done.returncode == 0 and target.is_file():
        return ""
    target.unlink(missing_ok=True)
    return done.stderr.strip() or "no message"
