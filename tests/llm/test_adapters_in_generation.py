from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from resources.inference import Inference
from synth_assets.llm.protocols import Sampling, TextGenerator
from synth_assets.llm.transformers_generator import TransformersGenerator
from synth_assets.schemas.records import ModelRecord

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=12)
QUESTIONS = ["Hi", "What is 2 plus 3? Start with the word Sure.", "Name the capital of France.", "Write down 2 tools."]
PEFT_NOISE = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def base(inference: Inference) -> ModelRecord:
    return inference.resolve("base")


def save(network: "PreTrainedModel", config: "PeftConfig", folder: Path, width: float) -> "PeftModel":
    """Save an adapter with random weights, large enough to change the generated text."""
    import torch
    from peft import get_peft_model

    torch.manual_seed(3)
    model = get_peft_model(network, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * width)
    model.save_pretrained(str(folder))
    return model.eval()


def greedy_texts(
    model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", prompts: list[list[int]], stops: set[int]
) -> list[str]:
    """Generate greedily with PEFT's forward pass, one prompt at a time, without padding or cache."""
    import torch

    answers = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(GREEDY.max_tokens):
            with torch.inference_mode():
                mask = torch.ones(1, len(ids), dtype=torch.int64)
                logits = model(input_ids=torch.tensor([ids]), attention_mask=mask).logits
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] in stops:
                ids.pop()
                break
        answers.append(ids[len(prompt) :])
    return [tokenizer.decode(answer) for answer in answers]


def config_of(method: str) -> "tuple[PeftConfig, float]":
    from peft import LoraConfig, PromptTuningConfig

    if method == "lora":
        modules = ["q_proj", "v_proj", "up_proj"]
        return LoraConfig(r=4, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM"), 0.05
    return PromptTuningConfig(num_virtual_tokens=7, task_type="CAUSAL_LM"), 0.5


def prompts_of(generator: TextGenerator) -> list[list[int]]:
    return [generator.encode_chat([{"role": "user", "content": question}]) for question in QUESTIONS]


@PEFT_NOISE
@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_batched_adapter_output_matches_peft(
    method: str, inference: Inference, base: ModelRecord, tmp_path: Path
) -> None:
    """A padded batch matches single rows; padding after the virtual tokens would break this."""
    network, tokenizer = inference.load_base(base)
    config, width = config_of(method)
    model = save(network, config, tmp_path / "some-adapter", width)
    generator = inference.load_generator(base, tmp_path / "some-adapter")
    assert isinstance(generator, TransformersGenerator)
    prompts = prompts_of(generator)
    texts = [c.text for c in generator.generate(prompts, [0] * len(prompts), GREEDY)]
    assert texts == greedy_texts(model, tokenizer, prompts, set(generator._default_stops))
    plain = inference.load_generator(base)
    assert texts != [c.text for c in plain.generate(prompts, [0] * len(prompts), GREEDY)]
    assert generator.model == "embedded:base+some-adapter"
    assert generator.revision == base.revision


@PEFT_NOISE
def test_virtual_tokens_count_towards_the_context(inference: Inference, base: ModelRecord, tmp_path: Path) -> None:
    network, _ = inference.load_base(base)
    save(network, config_of("prompt_tuning")[0], tmp_path / "adapter", 0.1)
    generator = inference.load_generator(base, tmp_path / "adapter")
    with pytest.raises(ValueError, match="must have 1 to 248 tokens, got 249"):  # 256 - 7 virtual - 1 new
        generator.generate([[5] * 249], [0], GREEDY)
    assert generator.generate([[5] * 248], [0], GREEDY)[0].completion_tokens <= 1


def test_an_adapter_without_safetensors_is_refused(inference: Inference, base: ModelRecord, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")  # fault 28
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors"):
        inference.load_generator(base, tmp_path)
