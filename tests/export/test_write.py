from pathlib import Path

import pytest

from synth_assets.stages.export.gguf import GreedyDifference, first_difference
from synth_assets.stages.export.merge import ExportError, LogitDifference, check_mergeable
from synth_assets.stages.export.write import MADE_BY, QUESTIONS, check_replaceable
from synth_assets.storage.manifests import write_manifest


def test_only_an_unchanged_export_is_replaced(tmp_path: Path) -> None:
    check_replaceable(tmp_path)
    (tmp_path / "file").write_text("a")
    with pytest.raises(ExportError, match="no export of this project"):
        check_replaceable(tmp_path)
    write_manifest(tmp_path, {"made_by": MADE_BY})
    check_replaceable(tmp_path)
    (tmp_path / "file").write_text("b")
    with pytest.raises(ExportError, match="changed since"):
        check_replaceable(tmp_path)


def test_prompt_tuning_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ExportError, match="only LoRA adapters can be merged, got PROMPT_TUNING"):
        check_mergeable(tmp_path)


def test_edges_of_the_comparisons() -> None:
    assert LogitDifference(largest=0.25, scale=1.0, tolerance=0.25, same_argmax=1.0).passed
    assert not LogitDifference(largest=0.5, scale=1.0, tolerance=0.25, same_argmax=1.0).passed
    assert GreedyDifference(0, 0, "a", "b", 0.1).explained
    assert not GreedyDifference(0, 0, "a", "b", 0.11).explained
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1, 3]) == 1
    assert first_difference([1, 2], [1]) == 1
    assert len(set(QUESTIONS)) == 50
