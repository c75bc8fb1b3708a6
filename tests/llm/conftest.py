"""Fixtures: embedded models, loaded once, and model folders of other sizes and architectures."""

import json
import math
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.embedded import model_path
from synth_assets.llm.transformers_generator import TransformersGenerator
from synth_assets.schemas.records import ModelRecord


@pytest.fixture(scope="session")
def inference() -> Inference:
    return Inference(hardware=Hardware(tier="cpu"))


@pytest.fixture(scope="session")
def teacher(inference: Inference) -> ModelRecord:
    return inference.resolve("teacher")


@pytest.fixture(scope="session")
def generator(inference: Inference, teacher: ModelRecord) -> TransformersGenerator:
    generator = inference.load_generator(teacher)
    assert isinstance(generator, TransformersGenerator)
    return generator


WriteModel = Callable[..., Path]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SMALL_LLAMA: Mapping[str, Any] = {  # the shapes of SmolLM2-135M
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1_536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "max_position_embeddings": 8_192,
    "tie_word_embeddings": True,
}


def safetensors_header(shapes: Mapping[str, tuple[int, ...]]) -> tuple[bytes, int]:
    """Return the header of a safetensors file of bfloat16 tensors, and the byte size of its values."""
    tensors, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        tensors[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header, end


def llama_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the tensor shapes of a Llama model with tied embeddings."""
    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    cached = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    block = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (cached, hidden),
        "self_attn.v_proj": (cached, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes | {"model.norm.weight": (hidden,)}


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a model folder with a sparse weight file: correct header and size, without disk usage.

    The default configuration has the dimensions of SmolLM2-135M.
    """

    def write(config: Mapping[str, Any] = SMALL_LLAMA, name: str = "model", *, weights: bool = True) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        for file in TOKENIZER_FILES:
            shutil.copy(model_path("teacher") / file, folder / file)
        if weights:
            start, values = safetensors_header(llama_shapes(config))
            with (folder / "model.safetensors").open("wb") as file:
                file.write(start)
                file.truncate(len(start) + values)
        return folder

    return write


TINY: Mapping[str, Any] = {
    "vocab_size": 1_024,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 4,
    "pad_token_id": 5,
}
TINY_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama": TINY,
    "gpt2": {
        "vocab_size": 1_024,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "bos_token_id": 0,
        "eos_token_id": 4,
        "pad_token_id": 5,
    },
    "gemma2": {**TINY, "head_dim": 8, "sliding_window": 16},
    "qwen2": {**TINY, "tie_word_embeddings": True},
    "qwen3": {**TINY, "head_dim": 8, "tie_word_embeddings": True},
    "gemma3_text": {**TINY, "head_dim": 8, "sliding_window": 16},
    "phi3": TINY,
    "mistral": {**TINY, "sliding_window": None},
}


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Write a folder for each of TINY_CONFIGS, with random weights and the embedded base's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folders = {}
    for kind, options in TINY_CONFIGS.items():
        folder = tmp_path_factory.mktemp(f"tiny-{kind}")
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).save_pretrained(folder)
        for file in TOKENIZER_FILES:
            shutil.copy(model_path("base") / file, folder / file)
        folders[kind] = folder
    return folders
