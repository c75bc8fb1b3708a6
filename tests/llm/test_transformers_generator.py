import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from resources.inference import Inference
from synth_assets.llm.protocols import Completion, Sampling
from synth_assets.llm.transformers_generator import TransformersGenerator
from synth_assets.schemas.records import ModelRecord

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast

SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=24)
TOO_MUCH = 2**60  # bytes; no machine has them


class CrampedNetwork:
    """The model with memory for `rows` rows; a larger batch makes the allocator fail."""

    def __init__(self, network: "PreTrainedModel", rows: int) -> None:
        self.network, self.rows = network, rows
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.network, name)

    def __call__(self, **inputs: "torch.Tensor") -> "CausalLMOutputWithPast":
        import torch

        rows = inputs["attention_mask"].shape[0]
        self.batches.append(rows)
        if rows > self.rows:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return self.network(**inputs)

    def eval(self) -> "CrampedNetwork":
        return self


def cramped(inference: Inference, teacher: ModelRecord, rows: int) -> tuple[TransformersGenerator, CrampedNetwork]:
    network, tokenizer = inference.load_base(teacher)
    small: Any = CrampedNetwork(network, rows)
    return TransformersGenerator(small, tokenizer, model="small", revision="r"), small


def block(generator: TransformersGenerator, rows: int = 48) -> list[list[int]]:
    return [
        generator.encode_chat([{"role": "user", "content": f"Tell me {row} {'very ' * (row % 5)}"}])
        for row in range(rows)
    ]


def test_out_of_memory_makes_the_forward_batches_smaller(
    inference: Inference, teacher: ModelRecord, generator: TransformersGenerator, caplog: pytest.LogCaptureFixture
) -> None:  # fault 16
    small, network = cramped(inference, teacher, rows=20)
    prompts = block(small)
    with caplog.at_level(logging.WARNING):
        result = small.generate(prompts, range(48), SAMPLING)
    assert small.batch_rows == 16
    assert network.batches[:3] == [48, 32, 16]
    assert max(network.batches[2:]) == 16
    assert [record.getMessage().split(";")[1].split(",")[0] for record in caplog.records] == [
        " batch size reduced to 32 rows",
        " batch size reduced to 16 rows",
    ]
    assert [c.text for c in result] == [c.text for c in generator.generate(prompts, range(48), SAMPLING)]


def test_out_of_memory_with_one_row_names_the_remedy(inference: Inference, teacher: ModelRecord) -> None:
    small, _ = cramped(inference, teacher, rows=0)
    with pytest.raises(RuntimeError, match="out of memory with one row; use a smaller model"):
        small.generate(block(small, 3), range(3), SAMPLING)


def test_other_errors_are_raised(inference: Inference, teacher: ModelRecord) -> None:
    generator = inference.load_generator(teacher)
    with pytest.raises(IndexError, match="out of range"):
        generator.generate([[5, 10_000]], [1], SAMPLING)


def test_more_rows_than_a_batch_are_cut_into_batches(generator: TransformersGenerator) -> None:
    prompts = block(generator, 70)
    result = generator.generate(prompts, range(70), SAMPLING)
    assert result[:64] == generator.generate(prompts[:64], range(64), SAMPLING)
    assert result[64:] == generator.generate(prompts[64:], range(64, 70), SAMPLING)


def test_global_random_state_is_unused(generator: TransformersGenerator) -> None:
    import torch

    def draw(seed: int) -> tuple[list[Completion], float]:
        torch.manual_seed(seed)
        result = generator.generate(block(generator, 8), range(8), SAMPLING)
        return result, torch.rand(1).item()

    first, second = draw(1), draw(2)
    torch.manual_seed(1)
    assert first[0] == second[0]
    assert first[1] == torch.rand(1).item()


def test_samples_agree_with_the_model_own_distribution(inference: Inference, teacher: ModelRecord) -> None:
    """Compare first tokens of 2,000 rows with the model's softmax for the prompt."""
    import torch

    generator = inference.load_generator(teacher)
    network, tokenizer = inference.load_base(teacher)
    prompt = generator.encode_template("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n")
    with torch.inference_mode():
        shares = network(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(0).numpy()
    result = generator.generate([prompt] * 2_000, range(2_000), Sampling(1.0, 1.0, 1))
    drawn = [tokenizer.encode(c.text, add_special_tokens=False)[0] if c.text else 0 for c in result]
    common = np.flatnonzero(shares * 2_000 >= 5)
    counts = np.bincount(drawn, minlength=len(shares))
    observed = [*counts[common], 2_000 - counts[common].sum()]
    expected = [*shares[common] * 2_000, 2_000 * (1 - shares[common].sum())]
    assert len(common) >= 5
    assert stats.chisquare(observed, expected).pvalue > 0.01
