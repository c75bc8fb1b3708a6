"""Generation of instructions on SmolLM2: ours against Transformers' own `generate`, and without each optimisation.

`python perf/generation.py [ROWS [TOKENS]]`: Magpie prompts of the laptop tier's topics, temperature 1, top-p .95, one
thread; needs `synth models fetch smollm2`. Times are CPU-seconds of this process, which a busy machine disturbs less
than wall time. All ways generate the same number of rows; each is reported in tokens per second, and as a ratio to
`generate` in float32.

`generate` keeps finished rows in the batch, sorts all 49,152 logits of each row, and samples all rows from one random
stream: its texts differ from ours. The float32 ways of ours give the same texts; the script counts them. The last way
uses the precision that the laptop tier selects for this CPU.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

from resources.deployment import home_folder, set_up_process
from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.llm import transformers_generator
from synth_assets.llm.protocols import Completion, Sampling
from synth_assets.llm.topics import SMALL_MODEL_TOPICS
from synth_assets.llm.transformers_generator import TransformersGenerator

ROWS, TOKENS = 64, 96
MODULE = transformers_generator.__name__
Way = Callable[[], int]


def main() -> None:
    """Measure each way once."""
    rows, tokens = (int(value) for value in (*sys.argv[1:], *(ROWS, TOKENS)[len(sys.argv) - 1 :]))
    set_up_process(home_folder(), "laptop")
    inference = Inference(hardware=Hardware(tier="laptop"))
    model = inference.resolve("teacher")
    network, tokenizer = inference.load_base(model)
    _one_thread()
    dtype = network.dtype
    network = network.float()
    generator = TransformersGenerator(network, tokenizer, model=model.name, revision=model.revision)
    openings = [[{"role": "system", "content": text}] if text else [] for text in SMALL_MODEL_TOPICS.values()]
    prompts = [generator.encode_user_turn(openings[row % len(openings)]) for row in range(rows)]
    sampling = Sampling(1.0, 0.95, tokens)
    texts: dict[str, list[str]] = {}

    def ours(name: str) -> int:
        made = generator.generate(prompts, range(rows), sampling)
        texts[name] = [completion.text for completion in made]
        return _tokens(made)

    ways: dict[str, Way] = {
        "generate": lambda: _plain(network, tokenizer, prompts, sampling),
        "ours": lambda: ours("ours"),
        "ours, vocabulary sorted": lambda: _without("LARGE_VOCABULARY", 2**31, lambda: ours("sorted")),
        "ours, rows stay": lambda: _without("COMPACT_AT", 0.0, lambda: ours("stay")),
    }
    rates = {name: _rate(way) for name, way in ways.items()}
    network.to(dtype)
    last = f"ours in {inference.hardware.row().dtype}"
    rates[last] = _rate(lambda: ours(last))
    for name, rate in rates.items():
        print(f"{name:24} {rate:7.1f} tokens per CPU-second, {rate / rates['generate']:.2f} times generate")
    same = [sum(a == b for a, b in zip(texts["ours"], texts[way], strict=True)) for way in ("sorted", "stay")]
    print(f"texts equal to ours, of {rows}: vocabulary sorted {same[0]}, rows stay {same[1]}")


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _rate(way: Way) -> float:
    started = time.process_time()
    return way() / (time.process_time() - started)


def _without(name: str, value: float, way: Way) -> int:
    with patch(f"{MODULE}.{name}", value):
        return way()


def _tokens(made: Sequence[Completion]) -> int:
    return sum(completion.completion_tokens for completion in made)


def _plain(network: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], sampling: Sampling) -> int:  # noqa: ANN401
    """Write with Transformers' own loop; returns the tokens before each row's end of turn."""
    import torch

    width = max(map(len, prompts))
    end = tokenizer.eos_token_id
    ids = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    torch.manual_seed(0)
    drawn: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_p": sampling.top_p, "top_k": 0}
    drawn |= {"max_new_tokens": sampling.max_tokens, "pad_token_id": end}
    with torch.inference_mode():
        made = network.generate(ids, attention_mask=mask, **drawn)
    return int((made[:, width:] != end).sum())


if __name__ == "__main__":
    main()
