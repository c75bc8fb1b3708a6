import sys
from types import SimpleNamespace

import pytest

from resources.hardware import TIERS
from synth_assets.llm.costs import (
    cost_usd,
    host_peak_bytes,
    parameter_counts,
    peak_memory,
    predicted_cost,
    reset_host_peak,
)


def test_tied_weights_count_once() -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    model.append(torch.nn.Linear(4, 2))  # 8 weights, 2 biases
    model[0].weight.requires_grad = False
    assert parameter_counts(model) == (10, 50)


def test_packed_four_bit_weights_count_by_their_shape() -> None:
    import torch

    layer = torch.nn.Linear(8, 4, bias=False)
    packed = torch.nn.Parameter(torch.zeros(16, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = SimpleNamespace(shape=torch.Size([4, 8]))
    layer.weight = packed
    assert parameter_counts(layer) == (0, 32)


def test_peak_memory_of_a_cpu_is_derived_from_shapes() -> None:
    import torch

    network = torch.nn.Linear(4, 2, bias=False)
    text = SimpleNamespace(hidden_size=4, num_hidden_layers=3, vocab_size=5)
    network.config = SimpleNamespace(get_text_config=lambda: text)
    # 8 weights of 4 bytes; 8 gradients of 4 and two moments of 4; for each of 10 tokens 3 layers x 4 x 34 x 2 bytes
    # (34 at 16 bits) and 5 logits of 4
    expected = 8 * 4 + 8 * (4 + 8) + 10 * (3 * 4 * 68 + 20)
    assert peak_memory(network, 10) == (expected, "derived")  # pyright: ignore[reportArgumentType]


def test_cost() -> None:
    assert cost_usd(1800.0, 4.0) == pytest.approx(2.0)


def test_a_prediction_needs_a_rate() -> None:
    h200 = TIERS["h200"]
    assert predicted_cost(1000.0, None, h200) == {"tokens": 1000.0}
    # 1,800 s at 4 dollars an hour
    assert predicted_cost(3_600_000.0, 2_000.0, h200) == {"tokens": 3_600_000.0, "seconds": 1800.0, "cost_usd": 2.0}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_the_process_is_measured() -> None:
    reset_host_peak()
    before = host_peak_bytes()
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    del block
    assert 190_000_000 < host_peak_bytes() - before < 260_000_000
