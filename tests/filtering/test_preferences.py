from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from synth_assets.llm.protocols import Message
from synth_assets.schemas.tables import PAIRS, REJECTED_PAIRS, SFT_ROWS
from synth_assets.stages.filtering.decisions import FilterOutcome
from synth_assets.stages.filtering.preferences import (
    REJECTED_ANSWER_RULES,
    PairContext,
    filter_preferences,
)
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.text.token_limits import TokenLimits

Items = Callable[..., pl.DataFrame]
Filtered = Callable[..., FilterOutcome]
STEM = (  # 21 words
    "why the quick brown fox jumps over a lazy dog while seven small grey cats watch from an old wooden fence"
)
GOOD = "There are several reasons for this, and the most important one is simple to explain."
BAD = "There is nothing to be said about this, because nobody has ever looked into it."
OTHER = "how farmers in cold northern valleys kept their bread fresh for many weeks before anyone had seen a mill"


def pair(name: str, instruction: str, chosen: str = "", rejected: str = "", **columns: object) -> dict[str, Any]:
    texts = {"instruction": instruction, "chosen": chosen or GOOD, "rejected": rejected or BAD}
    return dict.fromkeys(PAIRS.names()) | {"pair_id": name, "row_id": name, "source": "mine", **texts, **columns}


def sft(*rows: tuple[str, str, str]) -> pl.LazyFrame:
    """SFT rows of (instruction, group, split)."""
    records = [
        {"row_id": f"s{place}", "history": [], "instruction": text, "group": group, "split": split}
        for place, (text, group, split) in enumerate(rows)
    ]
    return pl.LazyFrame(records, schema=SFT_ROWS)


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _refusal(turns: Sequence[Message], answer: str) -> str:
    """Return the refusal of a chat template without system turns and without answers that mention a template."""
    system = any(turn["role"] == "system" for turn in turns)
    return "System role not supported" if system else "no templates, please" * ("template" in answer)


@pytest.fixture
def filtered(tmp_path: Path, items_of: Items) -> Filtered:
    def judge(*pairs: dict[str, Any], rows: pl.LazyFrame | None = None, item: str = "x y z") -> FilterOutcome:
        context = PairContext(sft() if rows is None else rows, items_of(item), 0.6)
        table = pl.LazyFrame(list(pairs), schema=PAIRS)
        return filter_preferences(table, context, FilterSpec(), TokenLimits(_words, 4096, _refusal), tmp_path)

    return judge


def fates(result: FilterOutcome) -> dict[str, str]:
    return dict(result.fates.iter_rows())


def groups(result: FilterOutcome) -> dict[str, str]:
    return dict(result.kept.select("pair_id", "group").collect().iter_rows())


def test_rules_for_the_rejected_answer_are_rules() -> None:
    assert set(REJECTED_ANSWER_RULES) <= {rule.reason for rule in RULES}


def test_pairs_that_the_chat_template_refuses_are_rejected(filtered: Filtered) -> None:
    answer = "A template is a thing that I would rather not talk about at any length today."
    result = filtered(
        pair("a", f"Explain {STEM}.", history=[{"role": "system", "content": "Be short."}]),
        pair("b", f"Explain {OTHER}.", rejected=answer),
        pair("c", "Tell me what a good story needs."),
    )
    assert fates(result) == {
        "a": "refused_by_chat_template",
        "b": "rejected_answer_refused_by_chat_template",
        "c": "kept",
    }
    details = dict(result.rejected.select("pair_id", "detail").collect().iter_rows())
    assert details == {"a": "System role not supported", "b": "no templates, please"}


def test_no_imported_pairs_are_no_error(filtered: Filtered) -> None:
    result = filtered()
    assert result.kept.collect().schema == PAIRS
    assert result.rejected.collect().schema == REJECTED_PAIRS
    assert (result.reasons, result.fates.height) == ({}, 0)


def test_the_rejected_answer_may_be_bad_but_must_be_clean_text(filtered: Filtered) -> None:
    result = filtered(
        pair("refuses", "Name a bird.", "A crow.", "I'm sorry, but I can't help with that request."),
        pair("marked", "Name a fish.", "A carp.", "A trout.<|eot_id|>"),
        pair("private", "Name a tree.", "An oak.", "Write to john.smith@mailhost.org for one."),
        pair("empty", "Name a river.", "The Rhine.", " "),
        pair("same", "Name a lake.", "Lake Victoria is a lake.", "lake  VICTORIA is a lake."),
        pair("bad chosen", "Name a sea.", "The Baltic Sea.</s>", "The Black Sea."),
    )
    assert fates(result) == {
        "refuses": "kept",
        "marked": "rejected_answer_control_token_in_response",
        "private": "rejected_answer_personal_data",
        "empty": "rejected_answer_empty_response",
        "same": "identical_answers",
        "bad chosen": "control_token_in_response",
    }


def test_the_lowest_of_duplicate_pairs_is_kept(filtered: Filtered) -> None:
    answers = {"chosen": f"Yes, and {OTHER}.", "rejected": BAD}
    result = filtered(
        pair("c", f"Explain {STEM}!", **answers),
        pair("b", f"Explain {STEM}.", **{**answers, "rejected": BAD.replace("it.", "that.")}),
        pair("a", f"explain  {STEM}!", **answers),
        pair("d", f"Explain {STEM}."),
    )
    assert fates(result) == {"c": "exact_duplicate", "b": "near_duplicate", "a": "kept", "d": "kept"}
    assert result.rejected.collect()["detail"].str.starts_with("repeats a, similarity").all()


def test_pairs_get_the_group_of_similar_instructions(filtered: Filtered) -> None:
    rows = sft((f"Explain {STEM} now.", "g1", "train"), ("Name a bird.", "g2", "train"))
    result = filtered(
        pair("a", "name A bird."),
        pair("b", f"Explain {STEM} today."),
        pair("c", f"Describe {OTHER} now."),
        pair("d", f"Describe {OTHER} today.", "It can be told in one short sentence.", "It cannot be told."),
        rows=rows,
    )
    assert groups(result) == {"a": "g2", "b": "g1", "c": "import-c", "d": "import-c"}


def test_held_out_instructions_and_items_are_rejected(filtered: Filtered) -> None:
    rows = sft((f"Explain {STEM} now.", "g1", "validation"), ("Name a bird.", "g2", "train"))
    item = "How many legs does a healthy adult spider have?"
    result = filtered(
        pair("a", f"Explain {STEM} today."),
        pair("b", "Tell me, please: how many legs does a healthy adult spider have?"),
        pair("c", "What do you ask?", rejected=item),
        pair("d", "Name a bird."),
        rows=rows,
        item=item,
    )
    assert fates(result) == {"a": "held_out_instruction", "b": "benchmark_item", "c": "benchmark_item", "d": "kept"}
    assert result.rejected.collect().filter(pair_id="a")["detail"][0].startswith("repeats s0, similarity 0.")


def test_a_pair_between_two_groups_is_rejected(filtered: Filtered) -> None:
    end, begin = " ".join(STEM.split()[4:]), " ".join(OTHER.split()[:16])
    rows = sft((f"Explain {STEM}.", "g1", "train"), (f"Explain {end}, and {begin}.", "g2", "train"))
    bridge = f"Explain {STEM}, and {' '.join(OTHER.split()[:9])}."
    # 32 words, 28 shingles: all 18 of the first row's, similarity .64; 23 of the second's 31, similarity .64
    result = filtered(pair("a", bridge), pair("b", f"Explain {STEM}!"), rows=rows)
    assert fates(result) == {"a": "between_groups", "b": "kept"}
    assert groups(result) == {"b": "g1"}


def test_the_result_does_not_depend_on_the_order_of_pairs(filtered: Filtered, tmp_path: Path) -> None:
    pairs = [pair(f"p{n:02}", f"Explain {STEM} {'now' if n % 2 else 'then'} {n % 5}.", f"A {n % 3}") for n in range(20)]
    first, second = filtered(*pairs), filtered(*reversed(pairs))
    assert fates(first) == fates(second)
    assert groups(first) == groups(second)
