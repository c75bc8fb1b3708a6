import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from resources.hardware import TIERS
from synth_assets.embedded import model_path
from synth_assets.llm.chat_encoding import encode_chat
from synth_assets.llm.loading import PAD_TOKENS, attention, load_causal_model, load_tokenizer, prepare_libraries

CPU = TIERS["cpu"]
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return the base without chat template and pad token, like base models on a hub."""
    folder = Path(shutil.copytree(model_path("base"), tmp_path / "bare"))
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_base_model_gets_a_template_and_a_pad_token(bare: Path) -> None:
    tokenizer, shipped = load_tokenizer(bare), load_tokenizer(model_path("base"))
    assert tokenizer.pad_token == PAD_TOKENS[0]
    assert tokenizer.padding_side == "left"
    ids = encode_chat(shipped, HELLO, answer="Hi")
    assert encode_chat(tokenizer, HELLO, answer="Hi") == ids
    text = tokenizer.apply_chat_template(HELLO, tokenize=False, add_generation_prompt=True)
    assert tokenizer.encode(text, add_special_tokens=False) == ids[0]


def test_libraries_are_silent_and_single_threaded_on_a_cpu(capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    prepare_libraries(CPU)
    assert torch.get_num_threads() == 1
    load_causal_model(model_path("base"), CPU)
    load_tokenizer(model_path("base"))
    assert capfd.readouterr() == ("", "")


def test_weights_are_loaded_in_the_tier_s_precision() -> None:
    import torch

    for name in ("float32", "bfloat16"):
        network = load_causal_model(model_path("base"), replace(CPU, dtype=name))
        assert {parameter.dtype for parameter in network.parameters()} == {getattr(torch, name)}


def test_missing_flash_attention_falls_back_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert attention(CPU) == "sdpa"
    assert caplog.records == []
    assert attention(TIERS["h100"]) == "sdpa"
    assert "flash-attn is not installed" in caplog.text


def test_cpu_build_of_torch_on_a_gpu_tier_raises() -> None:  # fault 31
    with pytest.raises(ValueError, match="install the CUDA build of torch"):
        prepare_libraries(TIERS["h100"])


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:  # fault 28
    folder = Path(shutil.copytree(model_path("base"), tmp_path / "pickled"))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(OSError, match="safetensors"):
        load_causal_model(folder, CPU)
