"""GGUF files of the embedded base in llama.cpp, whose converter does not know its tokenizer."""

from pathlib import Path

import polars as pl
import pytest

from synth_assets.embedded import model_path
from synth_assets.llm.loading import load_tokenizer
from synth_assets.schemas.tables import TURN
from synth_assets.stages.export import gguf, llama_cpp
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.gguf import convert
from synth_assets.stages.export.merge import LogitDifference
from synth_assets.stages.export.ollama import MODELFILE
from synth_assets.stages.export.ollama_export import SMALLEST_GOOD, GgufParts, export_ollama
from synth_assets.stages.export.source import ExportSource
from synth_assets.stages.export.write import GgufOptions, GgufResult, export_gguf, export_merged
from tests.support.lora import random_lora

pytestmark = pytest.mark.integration

ROWS = pl.DataFrame(
    {
        "row_id": ["a", "b"],
        "history": [[], [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]],
        "instruction": ["What is 2 plus 1?", "What colour is the ball?"],
        "response": ["It is 3.", "The ball is red."],
    },
    schema_overrides={"history": pl.List(TURN)},
)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    base, adapter = Path(model_path("base")), random_lora(folder / "adapter", seed=1)
    source = ExportSource("1", "abc", "embedded:base", "r1", base, adapter)
    assert isinstance(export_merged(source, folder / "merged", "float16", print), LogitDifference)
    return folder / "merged"


def test_an_embedded_model_runs_in_llama_cpp_and_becomes_an_ollama_model(merged: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    options = GgufOptions(prompts=6, tokens=16, rows=2)

    def run() -> GgufResult:
        return export_gguf({"adapter": "abc"}, tmp_path / "gguf", options, ROWS, lambda _: merged, lines.append)

    result = run()
    assert result.greedy.passed, result.greedy.text()
    assert result.pre_tokenizer == "smollm"
    assert not result.adds_bos
    assert [file.quantisation for file in result.files] == ["f16", "q8_0", "q4_k_m"]
    sizes = [file.bytes for file in result.files]
    assert sizes == sorted(sizes, reverse=True)
    f16 = result.files[0].perplexity
    assert f16 is not None
    assert abs(f16.ratio - 1) < 0.01
    assert f16.largest_nats < 0.1
    assert (f16.rows, f16.tokens) == (2, sum(len(ids) for ids in _answers(merged)))
    assert run() == result
    assert lines[-1] == "gguf is unchanged"
    parts = GgufParts(merged, tmp_path / "gguf", result)
    made = export_ollama({}, tmp_path / "ollama", SMALLEST_GOOD, lambda _: parts, print)
    assert (tmp_path / "ollama" / made.file.name).stat().st_size == made.file.bytes
    assert (tmp_path / "ollama" / MODELFILE).read_text() == made.modelfile
    with pytest.raises(ExportError, match="quantisation must be one of"):
        export_ollama({}, tmp_path / "other", "q3", lambda _: parts, print)


def _answers(merged: Path) -> list[list[int]]:
    from synth_assets.training.data import encode_rows

    return [example.answer for example in encode_rows(ROWS, load_tokenizer(merged), 256)]


def test_a_tokenizer_that_llama_cpp_cannot_split_is_refused(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "PRE_TOKENIZERS", ("gpt-2",))
    monkeypatch.setattr(gguf, "token_ids", lambda _, texts: [[1]] * len(texts))
    with pytest.raises(ExportError, match=r"no pre-tokenizer for this tokenizer: gpt-2 split .*--to merged"):
        convert(merged, load_tokenizer(merged), tmp_path / "model.gguf", [])
    assert not (tmp_path / "model.gguf").exists()


def test_a_model_that_llama_cpp_does_not_support_is_refused(merged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in merged.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    text = (folder / "config.json").read_text().replace("LlamaForCausalLM", "UnheardOfForCausalLM")
    (folder / "config.json").write_text(text)
    with pytest.raises(ExportError, match=r"converter rejected model .*use a base model that llama.cpp supports"):
        convert(folder, load_tokenizer(folder), tmp_path / "model.gguf", [])


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "MODULES", ("cyllama", "not_installed"))
    with pytest.raises(
        ExportError, match=r"GGUF files need not_installed, not installed: pip install 'synth-assets\[export\]'"
    ):
        llama_cpp.check_installed()
