from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from synth_assets.llm.loading import load_adapter
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.training.data import Example, encode_pairs
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.logprobs import answer_logprobs, pair_logprobs, reference_policy


def test_batches_give_what_one_row_at_a_time_gives(load: Callable[[], LoadedBase], pairs: pl.DataFrame) -> None:
    import torch

    model, tokenizer = load()
    examples = [Example(e.prompt, e.chosen) for e in encode_pairs(pairs, tokenizer, 256)]
    expected = []
    with torch.no_grad():
        for example in examples:
            logits = model(torch.tensor([example.prompt + example.answer])).logits[0].double()
            steps = range(len(example.prompt) - 1, len(example) - 1)  # the position before each token of the answer
            expected.append(
                sum(
                    float(logits[at, token] - logits[at].exp().sum().log())
                    for at, token in zip(steps, example.answer, strict=True)
                )
            )
    assert answer_logprobs(model, examples, batch_size=5) == pytest.approx(expected, abs=1e-3)


def test_reference_of_pairs(
    load: Callable[[], LoadedBase], lora_folder: Path, pairs: pl.DataFrame, setup: TrainingSetup
) -> None:
    table = pair_logprobs(reference_policy(load(), lora_folder, setup), pairs, setup)
    assert table.schema == REFERENCE_LOGPROBS
    assert table["pair_id"].to_list() == pairs["pair_id"].to_list()
    model, tokenizer = load()
    pair = encode_pairs(pairs.head(1), tokenizer, 256)[0]
    policy = load_adapter(model, lora_folder)
    alone = answer_logprobs(policy, [Example(pair.prompt, pair.chosen), Example(pair.prompt, pair.rejected)], 1)
    assert table.row(0)[1:] == pytest.approx(alone, abs=1e-3)
