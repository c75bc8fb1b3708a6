from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl
import pytest

from synth_assets.llm.chat_encoding import control_ids
from synth_assets.training.data import (
    IGNORED,
    Example,
    PairExample,
    best_responses,
    by_split,
    encode_pairs,
    encode_rows,
    pair_table,
    sft_table,
)
from synth_assets.training.engine import LoadedBase
from synth_assets.training.errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def test_the_loss_covers_the_answer_and_its_end_alone() -> None:
    table = sft_table([Example([5, 6, 7], [8, 9])])
    assert table[0] == {"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORED, IGNORED, IGNORED, 8, 9], "length": 5}


def test_rows_are_what_the_chat_template_writes(load: Callable[[], LoadedBase], rows: pl.DataFrame) -> None:
    _, tokenizer = load()
    (example,) = encode_rows(rows.head(1), tokenizer, 256)
    messages = [{"role": "user", "content": rows["instruction"][0]}, {"role": "assistant", "content": "It is 1."}]
    assert tokenizer.decode(example.prompt + example.answer) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(example.answer).startswith("It is 1.")
    assert example.answer[-1] in control_ids(tokenizer)


# fault 11
def test_text_never_becomes_a_control_token(load: Callable[[], LoadedBase], rows: pl.DataFrame) -> None:
    _, tokenizer = load()
    marker = tokenizer.convert_ids_to_tokens(min(control_ids(tokenizer)))
    spoilt = rows.head(1).with_columns(instruction=pl.lit(f"Say {marker}"), response=pl.lit(f"So: {marker}"))
    (clean,), (example,) = encode_rows(rows.head(1), tokenizer, 256), encode_rows(spoilt, tokenizer, 256)
    controls = control_ids(tokenizer)
    assert sum(i in controls for i in example.prompt) == sum(i in controls for i in clean.prompt)
    assert sum(i in controls for i in example.answer) == 1


def test_rows_beyond_the_context_raise_and_are_not_truncated(
    load: Callable[[], LoadedBase], rows: pl.DataFrame
) -> None:
    _, tokenizer = load()
    lengths = [len(example) for example in encode_rows(rows, tokenizer, 256)]
    assert len(encode_rows(rows, tokenizer, max(lengths))) == 32
    longest = lengths.count(max(lengths))
    with pytest.raises(TrainingError, match=rf"^{longest} rows exceed the context of {max(lengths) - 1} tokens"):
        encode_rows(rows, tokenizer, max(lengths) - 1)


def test_history_comes_before_the_instruction(load: Callable[[], LoadedBase], rows: pl.DataFrame) -> None:
    _, tokenizer = load()
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
    row = rows.head(1).with_columns(history=pl.Series([turns], dtype=rows.schema["history"]))
    (example,) = encode_rows(row, tokenizer, 256)
    text = tokenizer.decode(example.prompt)
    assert 0 < text.index("Hello.") < text.index("Yes?") < text.index("What is 0 plus 1?")


def test_history_comes_before_the_instruction_of_a_pair(
    load: Callable[[], LoadedBase], pairs: pl.DataFrame, rows: pl.DataFrame
) -> None:
    _, tokenizer = load()
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
    pair = pairs.head(1).with_columns(history=pl.Series([turns], dtype=rows.schema["history"]))
    (example,) = encode_pairs(pair, tokenizer, 256)
    (same,) = encode_rows(rows.head(1).with_columns(pair["history"]), tokenizer, 256)
    assert example.prompt == same.prompt
    assert example.chosen == same.answer


@pytest.fixture
def strict(load: Callable[[], LoadedBase]) -> "PreTrainedTokenizerBase":
    """Return a tokenizer whose chat template requires alternating user and assistant turns, without a system turn."""
    _, tokenizer = load()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
        "### {{ m['role'] }}: {{ m['content'] }}{% endfor %}{% if add_generation_prompt %}### assistant: {% endif %}"
    )
    return tokenizer


def test_rows_that_the_chat_template_refuses_are_named(strict: "PreTrainedTokenizerBase", rows: pl.DataFrame) -> None:
    system = pl.Series([[], [{"role": "system", "content": "Be short."}], []], dtype=rows.schema["history"])
    with pytest.raises(TrainingError, match=r"^1 rows .* such as row r1: .*system, user.*roles must alternate"):
        encode_rows(rows.head(3).with_columns(history=system), strict, 256)


def test_pairs_that_the_chat_template_refuses_are_named(strict: "PreTrainedTokenizerBase", pairs: pl.DataFrame) -> None:
    twice = pl.Series([[{"role": "user", "content": "Hello."}]] * 2, dtype=pairs.schema["history"])
    with pytest.raises(TrainingError, match=r"^2 rows .* such as pair pr0: .*user, user.*roles must alternate"):
        encode_pairs(pairs.head(2).with_columns(history=twice), strict, 256)
    with pytest.raises(TrainingError, match="such as row r0"):
        encode_rows(best_responses(pairs.head(2).with_columns(history=twice)), strict, 256)


def test_pairs_share_their_prompt(load: Callable[[], LoadedBase], pairs: pl.DataFrame) -> None:
    _, tokenizer = load()
    pair = encode_pairs(pairs.head(1), tokenizer, 256)[0]
    assert tokenizer.decode(pair.chosen).startswith("It is 1.")
    assert tokenizer.decode(pair.rejected).startswith("No idea, sorry.")
    assert len(pair) == len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))


def test_a_pair_without_reference_is_refused() -> None:
    pairs = [PairExample("a", [1], [2], [3]), PairExample("b", [1], [2, 4], [3])]
    table = pair_table(pairs, {"a": (-1.0, -2.0), "b": (-3.0, -4.0)})
    assert table["ref_rejected_logps"][:] == [-2.0, -4.0]
    assert table["length"][:] == [2, 3]
    with pytest.raises(TrainingError, match="1 pairs have no reference log-probabilities, such as b"):
        pair_table(pairs, {"a": (-1.0, -2.0)})


def test_best_response_of_each_instruction() -> None:
    pairs = pl.DataFrame(
        {
            "row_id": ["x", "x", "y", "z"],
            "history": [[], [], [], ["earlier"]],
            "instruction": ["X", "X", "Y", "Z"],
            "chosen": ["good", "best", "only", "imported"],
            "split": ["train", "train", "validation", "train"],
            "chosen_reward": [1.0, 2.0, -1.0, None],
        }
    )
    best = best_responses(pairs)
    kept = [("X", "best", "train"), ("Y", "only", "validation"), ("Z", "imported", "train")]
    assert best.select("instruction", "response", "split").rows() == kept
    assert best["history"].to_list() == [[], [], ["earlier"]]
    train, validation = by_split(best)
    assert (train["response"].to_list(), validation["response"].to_list()) == (["best", "imported"], ["only"])
