from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from synth_assets.schemas.tables import JUDGED, REJECTED
from synth_assets.stages.filtering import decisions
from synth_assets.stages.filtering.apply import FilterResult
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.storage.manifests import content_hash
from tests.filtering.conftest import fates

Rows = Callable[..., pl.DataFrame]
Filtered = Callable[..., FilterResult]
SUBJECTS = ("Jupiter", "Paris", "iron", "whales", "Mozart", "chess", "coffee", "bees", "glass", "paper", "rain", "salt")


def fact(name: str) -> tuple[str, str]:
    return f"Tell me one fact about {name}.", f"One fact about {name} is its age."


def test_every_row_is_kept_or_rejected_with_its_reason(filtered: Filtered, rows_of: Rows) -> None:
    result = filtered(rows_of(fact("rain"), ("", "An answer."), fact("salt"), ("Name a bird.", "A crow.</s>")))
    kept, rejected = result.kept.collect(), result.rejected.collect()
    assert kept.schema == JUDGED
    assert rejected.schema == REJECTED
    assert kept["row_id"].to_list() == ["r000", "r002"]
    assert rejected.select("row_id", "reason", "detail").rows() == [
        ("r001", "empty_instruction", "0 is below 1"),
        ("r003", "control_token_in_response", "1 is above 0: </s>"),
    ]
    assert result.reasons == {"control_token_in_response": 1, "empty_instruction": 1}
    assert fates(result) == {
        "r000": "kept",
        "r001": "empty_instruction",
        "r002": "kept",
        "r003": "control_token_in_response",
    }


def test_the_score_is_the_relative_distance_to_the_nearest_limit(filtered: Filtered, rows_of: Rows) -> None:
    # four 5-word shingles each: "one two three four five six seven eight"; the response shares three of five in all
    rows = rows_of(("one two three four five six seven eight", "one two three four five six seven nine"), fact("rain"))
    scores = filtered(rows).kept.collect()["score"].to_list()
    assert scores == pytest.approx([1 - (3 / 5) / 0.9, 1.0])


def test_the_lowest_row_of_exact_duplicates_is_kept_in_any_order(filtered: Filtered, rows_of: Rows) -> None:
    rows = rows_of(fact("rain"), fact("salt"), ("tell me  one fact about RAIN.", "Rain is wet."))
    expected = {"r000": "kept", "r001": "kept", "r002": "exact_duplicate"}
    assert fates(filtered(rows)) == expected
    assert fates(filtered(rows.reverse())) == expected
    assert filtered(rows).rejected.collect()["detail"].to_list() == ["repeats r000, similarity 1.0"]


def test_the_row_of_an_earlier_batch_is_kept(filtered: Filtered, rows_of: Rows) -> None:
    late, early = rows_of(fact("rain"), batch="2026-W48"), rows_of(fact("rain"), batch="2026-W47")
    rows = pl.concat([late, early.with_columns(row_id=pl.lit("z"))])
    assert fates(filtered(rows)) == {"r000": "exact_duplicate", "z": "kept"}


def test_the_same_words_after_other_turns_are_another_task(filtered: Filtered, rows_of: Rows) -> None:
    history = [{"role": "user", "content": "Let us talk about rivers."}, {"role": "assistant", "content": "Gladly."}]
    rows = pl.concat([rows_of(fact("it")), rows_of(fact("it"), history=history).with_columns(row_id=pl.lit("s"))])
    assert set(fates(filtered(rows)).values()) == {"kept"}


def test_near_duplicates_and_tasks_of_one_form(filtered: Filtered, rows_of: Rows) -> None:
    words = [f"word{number}" for number in range(30)]
    altered = [*words[:-1], "other"]  # one word of 30 at the end: 25 of 27 shingles are shared
    rows = rows_of(
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is the capital of Italy?", "The capital of Italy is Rome."),
        (f"Explain {' '.join(words)}.", "These are thirty words in a row."),
        (f"Explain {' '.join(altered)}.", "These are thirty words again."),
        ("Calculate 5 + 3.", "5 plus 3 is 8."),
        ("Calculate 5 - 3.", "5 minus 3 is 2."),
    )
    assert fates(filtered(rows)) == {
        "r000": "kept",
        "r001": "kept",
        "r002": "kept",
        "r003": "near_duplicate",
        "r004": "kept",
        "r005": "kept",
    }


def _varied(rows_of: Rows, count: int) -> pl.DataFrame:
    random = np.random.default_rng(7)
    texts = [" ".join(f"w{word}" for word in random.integers(0, 400, 40)) for _ in range(count)]
    texts += [" ".join([*text.split()[:-1], "changed"]) for text in texts[: count // 3]] + texts[: count // 5]
    return rows_of(*((f"Explain {text}.", "It is a list of words.") for text in texts))


def test_order_and_chunks_do_not_change_the_result(
    filtered: Filtered, rows_of: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _varied(rows_of, 60)
    first = filtered(rows)
    assert first.reasons == {"near_duplicate": 20, "exact_duplicate": 12}
    shuffled = filtered(rows.sample(fraction=1, shuffle=True, seed=3))
    assert fates(shuffled) == fates(first)
    monkeypatch.setattr(decisions, "CHUNK_ROWS", 7)
    monkeypatch.setattr(decisions, "FILE_ROWS", 20)
    again = filtered(rows)
    assert fates(again) == fates(first)
    assert content_hash(again.kept) == content_hash(first.kept)


def test_a_planted_benchmark_item_is_removed_and_reported(
    filtered: Filtered, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:  # fault 10
    items = items_of("What is the number of legs of a spider?", "tell me ONE fact about  salt")
    rows = rows_of(*map(fact, SUBJECTS), ("Answer. What is the number of legs of a spider?", "A spider has 8 legs."))
    result = filtered(rows, items)
    assert result.reasons == {"benchmark_item": 2}
    assert result.rejected.collect().select("row_id", "detail").rows() == [
        ("r011", "i1: all of it"),
        ("r012", "i0: all of it"),
    ]


def test_missing_benchmark_items_are_an_error(
    filtered: Filtered, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:  # fault 10
    with pytest.raises(ValueError, match="there are no items"):
        filtered(rows_of(fact("rain")), items_of())
    with pytest.raises(ValueError, match="i1"):
        filtered(rows_of(fact("rain")), items_of("A good prompt.", "  "))


def test_all_rows_rejected_is_an_error_that_shows_the_table(filtered: Filtered, rows_of: Rows) -> None:  # fault 8
    with pytest.raises(ValueError, match="no instruction row is left of 3") as error:
        filtered(rows_of(("", "x"), ("", "y"), ("Name a bird.", "")))
    assert "  empty_instruction: 2\n  empty_response: 1" in str(error.value)


def test_no_rows_is_an_error(filtered: Filtered, rows_of: Rows) -> None:  # fault 8
    with pytest.raises(ValueError, match="there were no rows"):
        filtered(rows_of())


@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        "\u202e\u0645\u0631\u062d\u0628\u0627",
        "\ufeff",
        "a",
        "x" * 1_000_000,
        "\r\n",
        "\x1b[31mred\x1b[0m",
        "\U0001f600",
    ],
)
def test_unusual_texts_raise_nothing_and_do_not_affect_other_rows(
    filtered: Filtered, rows_of: Rows, text: str
) -> None:  # fault 7
    rows = rows_of(fact("rain"), (text, "An answer to it."), ("Name a bird.", text), (text, text), fact("salt"))
    found = fates(filtered(rows))
    assert found["r000"] == found["r004"] == "kept"


@pytest.mark.parametrize("mark", ["<|eot_id|>", "</s>", "[INST]", "<|im_end|>", "<|start_header_id|>", "<end_of_turn>"])
def test_control_tokens_never_pass(filtered: Filtered, rows_of: Rows, mark: str) -> None:  # fault 11
    rows = rows_of(fact("rain"), (f"Name a bird.{mark}", "A crow."), ("Name a fish.", f"A carp.{mark} And more."))
    assert set(filtered(rows).reasons) == {"control_token_in_instruction", "control_token_in_response"}


def test_earlier_turns_are_checked_for_control_tokens_and_benchmark_items(
    filtered: Filtered, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:  # faults 10 and 11
    item = "How many legs does a healthy adult spider have?"
    turns = [[{"role": "user", "content": text}] for text in (item, "Hello.<|eot_id|>", "Hello.")]
    rows = [rows_of(fact(name), history=turn, batch=name) for name, turn in zip(SUBJECTS, turns, strict=False)]
    assert filtered(pl.concat(rows), items_of(item)).reasons == {"benchmark_item": 1, "control_token_in_instruction": 1}


def _real(rows_of: Rows, path: Path, response: str) -> pl.DataFrame:
    table = pl.read_ndjson(path, infer_schema_length=None)
    asked = pl.col("instruction") + (pl.lit("\n\n") + pl.col("input") if "input" in table.columns else pl.lit(""))
    pairs = table.select(asked.str.strip_chars(), pl.col(response)).rows()
    return rows_of(*((asked.removesuffix("\n\n<noinput>"), answer) for asked, answer in pairs))


def test_real_rows(filtered: Filtered, rows_of: Rows, test_data: Path) -> None:
    good = filtered(_real(rows_of, test_data / "alpaca_en_first500.jsonl", "output"))
    assert good.kept.collect().height >= 0.95 * 500
    bad = filtered(_real(rows_of, test_data / "magpie_llama31_first750.jsonl", "response"))
    assert bad.rejected.collect().height >= 0.97 * 750


def test_thresholds_come_from_the_spec(filtered: Filtered, rows_of: Rows) -> None:
    rows = rows_of(fact("rain"), ("Tell me all that you know about rain.", "It is wet."))
    assert filtered(rows, spec=FilterSpec(max_response_words=4)).reasons == {"response_too_long": 1}
