"""SmolLM2-135M-Instruct with a random LoRA adapter in llama.cpp: greedy text as in Transformers, perplexity by file."""

from pathlib import Path

import polars as pl
import pytest

from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.loading import load_tokenizer
from synth_assets.llm.sources.fetch import fetch_model
from synth_assets.schemas.tables import TURN
from synth_assets.stages.export.gguf_quality import QUESTIONS
from synth_assets.stages.export.ollama import chat_pieces
from synth_assets.stages.export.source import ExportSource
from synth_assets.stages.export.write import GgufOptions, export_gguf, export_merged
from tests.support.lora import random_lora

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]

ANSWERS = ("It is something that most people know.", "Here are three facts: it is old, it is common and it is useful.")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTH_HOME", str(tmp_path_factory.mktemp("smollm2")))
        try:
            return fetch_model("smollm2", lambda _: None).folder
        except ModelFilesError as error:
            pytest.skip(str(error))


def test_llama_cpp_writes_the_text_of_transformers(smollm2: Path, tmp_path: Path) -> None:
    adapter = random_lora(tmp_path / "adapter", seed=1, base=smollm2)
    source = ExportSource("1", "abc", "package:smollm2", "r1", smollm2, adapter)
    rows = pl.DataFrame(
        {
            "row_id": [str(i) for i in range(16)],
            "history": [[] for _ in range(16)],
            "instruction": QUESTIONS[:16],
            "response": [ANSWERS[i % 2] for i in range(16)],
        },
        schema_overrides={"history": pl.List(TURN)},
    )

    def merged(work: Path) -> Path:
        assert export_merged(source, work / "merged", "float16", print).passed
        return work / "merged"

    result = export_gguf({}, tmp_path / "gguf", GgufOptions(), rows, merged, print)
    assert result.greedy.prompts == 50
    assert result.greedy.passed, result.greedy.text()
    assert result.pre_tokenizer == "auto"
    assert result.files[0].perplexity is not None
    assert abs(result.files[0].perplexity.ratio - 1) < 0.01


def test_its_template_has_a_default_system_prompt(smollm2: Path) -> None:
    assert chat_pieces(load_tokenizer(smollm2)).default_system.startswith("You are a helpful AI assistant named SmolLM")
