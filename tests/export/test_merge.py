import shutil
from pathlib import Path
from typing import Any

import pytest

from synth_assets.embedded import model_path
from synth_assets.llm.loading import load_adapter, load_causal_model
from synth_assets.schemas.tier import CPU_FLOAT32
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.merge import (
    LogitDifference,
    check_dtype,
    check_mergeable,
    compare_logits,
    logits,
    merge_model,
)
from tests.support.lora import random_lora

PROMPT = [[0, 40, 41, 42, 43, 44]]


def loaded(folder: Path) -> Any:  # noqa: ANN401 - a model
    return load_causal_model(folder, CPU_FLOAT32).eval()


@pytest.mark.integration
def test_merged_logits_equal_the_adapter_on_its_base(tmp_path: Path) -> None:
    adapter, merged = random_lora(tmp_path / "adapter", seed=1), tmp_path / "merged"
    merged.mkdir()
    difference = merge_model(model_path("base"), adapter, merged, "float16")
    assert difference.passed
    assert difference.same_argmax == 1.0
    expected = logits(load_adapter(loaded(model_path("base")), adapter).eval(), PROMPT)  # pyright: ignore[reportArgumentType]
    assert compare_logits(expected, logits(loaded(merged), PROMPT), 0.01).passed
    without = compare_logits(expected, logits(loaded(model_path("base")), PROMPT), 0.01)
    assert not without.passed  # the adapter matters
    assert (merged / "chat_template.jinja").read_text() == (model_path("base") / "chat_template.jinja").read_text()


@pytest.mark.integration
def test_a_dpo_adapter_on_lora_is_merged_alone(tmp_path: Path) -> None:
    """The adapter that continued another one holds both; merging the first one too would count it twice."""
    first = random_lora(tmp_path / "lora", seed=1)
    second = random_lora(tmp_path / "dpo", seed=2, continued=first)
    merged = tmp_path / "merged"
    merged.mkdir()
    merge_model(model_path("base"), second, merged, "float16")
    expected = logits(load_adapter(loaded(model_path("base")), second).eval(), PROMPT)  # pyright: ignore[reportArgumentType]
    assert compare_logits(expected, logits(loaded(merged), PROMPT), 0.01).passed
    both: Any = load_adapter(load_adapter(loaded(model_path("base")), first).merge_and_unload(), second)  # pyright: ignore
    assert not compare_logits(expected, logits(both.eval(), PROMPT), 0.01).passed


def test_prompt_tuning_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ExportError, match="got PROMPT_TUNING: its virtual tokens are not weights"):
        check_mergeable(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(ExportError, match="only LoRA adapters can be merged, got IA3"):
        check_mergeable(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(ExportError, match=r"train again"):
        check_mergeable(tmp_path)


def test_edges() -> None:
    assert LogitDifference(largest=0.25, scale=1.0, tolerance=0.25, same_argmax=1.0).passed
    assert not LogitDifference(largest=0.5, scale=1.0, tolerance=0.25, same_argmax=1.0).passed
    assert not LogitDifference(largest=float("nan"), scale=1.0, tolerance=0.25, same_argmax=1.0).passed
    check_dtype("bfloat16")
    with pytest.raises(ExportError, match="dtype must be one of float16, bfloat16, got 'float32'"):
        check_dtype("float32")
