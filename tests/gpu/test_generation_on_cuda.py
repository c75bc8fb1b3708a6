"""Detection and generation on a CUDA device. Run with `pytest -m gpu`."""

from dataclasses import replace

import pytest

from resources.hardware import TIERS, Hardware, detect, find_gpu
from resources.inference import Inference
from synth_assets.embedded import model_path
from synth_assets.llm.gumbel_noise import gumbel_noise, seed_tensor
from synth_assets.llm.loading import load_causal_model, load_tokenizer
from synth_assets.llm.protocols import Sampling
from synth_assets.llm.transformers_generator import TransformersGenerator

pytestmark = pytest.mark.gpu

PRE_QUERY = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"


def generator_on(device: str, dtype: str = "float32") -> TransformersGenerator:
    tier = replace(TIERS["cpu"], device=device, dtype=dtype)  # pyright: ignore[reportArgumentType]
    folder = model_path("teacher")
    return TransformersGenerator(load_causal_model(folder, tier), load_tokenizer(folder), model="t", revision="r")


def test_the_gpu_is_detected() -> None:
    gpu = find_gpu()
    assert gpu is not None
    row = TIERS[detect()]
    assert row.device == "cuda"
    assert row.memory_gb <= gpu.memory_gb
    assert Hardware(tier="auto").limits().device == "cuda"


def test_noise_is_the_same_on_gpu_and_cpu() -> None:
    import torch

    cpu = gumbel_noise(seed_tensor(range(64), "cpu"), 11, 4_096)
    cuda = gumbel_noise(seed_tensor(range(64), "cuda"), 11, 4_096).cpu()
    torch.testing.assert_close(cpu, cuda, rtol=1e-12, atol=1e-12)


def test_texts_agree_with_the_cpu_up_to_rounding() -> None:
    sampling = Sampling(1.0, 1.0, 48)
    prompts = [generator_on("cpu").encode_template(PRE_QUERY)] * 64
    cpu = generator_on("cpu").generate(prompts, range(64), sampling)
    cuda = generator_on("cuda").generate(prompts, range(64), sampling)
    assert sum(first.text == second.text for first, second in zip(cpu, cuda, strict=True)) >= 60


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_same_block_twice_gives_the_same_bytes(dtype: str) -> None:
    generator = generator_on("cuda", dtype)
    prompts = [generator.encode_template(PRE_QUERY)] * 64
    assert generator.generate(prompts, range(64), Sampling(1.0, 0.9, 48)) == generator.generate(
        prompts, range(64), Sampling(1.0, 0.9, 48)
    )


def test_a_quantised_model_generates() -> None:
    pytest.importorskip("bitsandbytes")
    tier = replace(TIERS["t4"], dtype="float16", attention="sdpa")
    folder = model_path("teacher")
    generator = TransformersGenerator(load_causal_model(folder, tier), load_tokenizer(folder), model="t", revision="r")
    prompts = [generator.encode_template(PRE_QUERY)] * 16
    completions = generator.generate(prompts, range(16), Sampling(1.0, 1.0, 48))
    assert sum(completion.finish_reason == "stop" for completion in completions) >= 12


def test_a_model_resolves_and_generates_on_the_detected_tier() -> None:
    inference = Inference(hardware=Hardware(tier="auto", teacher="embedded:teacher"))
    generator = inference.load_generator(inference.resolve("teacher"))
    completions = generator.generate([generator.encode_template(PRE_QUERY)] * 8, range(8), Sampling(1.0, 1.0, 48))
    assert all(completion.finish_reason == "stop" for completion in completions)
