from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from synth_assets.schemas.tables import CANDIDATES, PAIRS
from synth_assets.stages.preference.pairs import (
    PairSpec,
    build_pairs,
    length_bias,
    non_empty_pairs,
    reasons_text,
)
from synth_assets.text.token_limits import TokenLimits

SPEC = PairSpec(margin=0.5, validation_share=0.0)
NO_IMPORTS = pl.DataFrame(schema=PAIRS)


def candidate(row: str, text: str, reward: float | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "candidate_id": f"{row}/{text}",
        "row_id": row,
        "group": f"group of {row}",
        "split": "train",
        "instruction": f"instruction of {row}",
        "response": text,
        "temperature": 1.0,
        "history": [],
        "seed": 1,
        "response_tokens": 3,
        "finish_reason": "stop",
        "model": "m",
        "revision": "r",
        "reward": reward,
    } | changes


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=CANDIDATES)


def brought(instruction: str, chosen: str, rejected: str, number: int = 0) -> dict[str, Any]:
    row = dict.fromkeys(PAIRS.names()) | {"pair_id": f"i{number}", "row_id": f"i{number}", "source": "mine.jsonl"}
    row["group"] = f"import-i{number}"
    return row | {"history": [], "instruction": instruction, "chosen": chosen, "rejected": rejected}


def imported(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=PAIRS)


def sides(pairs: pl.DataFrame) -> list[tuple[Any, ...]]:
    return pairs.select("chosen", "rejected").rows()


def counted(reasons: pl.DataFrame) -> dict[tuple[str, str], int]:
    return {(of, reason): count for of, reason, count in reasons.iter_rows()}


EARLIER = [{"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "3"}]
GOOD = [candidate("z", "good", 2.0), candidate("z", "bad", 0.0)]  # a pair that always remains


def test_the_best_and_the_worst_make_a_pair() -> None:
    rows = table(*(candidate("a", text, reward) for text, reward in [("w", 1.0), ("x", 3.0), ("y", -1.0), ("z", 2.0)]))
    built = build_pairs(rows, NO_IMPORTS, SPEC)
    assert built.pairs.schema == PAIRS
    row = built.pairs.row(0, named=True)
    assert (row["chosen"], row["rejected"], row["margin"]) == ("x", "y", 4.0)
    assert (row["chosen_reward"], row["rejected_reward"], row["group"]) == (3.0, -1.0, "group of a")
    assert built.fates.rows() == [("a", "kept")]


def test_all_pairs_above_the_margin() -> None:
    rows = table(*(candidate("a", text, reward) for text, reward in [("w", 1.0), ("x", 3.0), ("y", 0.75)]))
    built = build_pairs(rows, NO_IMPORTS, replace(SPEC, strategy="all"))
    # x > w by 2, x > y by 2.25; w > y by 0.25 only
    assert sides(built.pairs) == [("x", "w"), ("x", "y")]
    assert counted(built.reasons) == {("pairs", "margin_too_small"): 1}
    assert built.pairs["pair_id"].n_unique() == 2


@pytest.mark.parametrize(("better", "kept"), [(1.5, 2), (1.4375, 1)])
def test_each_side_of_the_margin(better: float, kept: int) -> None:
    rows = table(candidate("a", "x", better), candidate("a", "y", 1.0), *GOOD)
    assert build_pairs(rows, NO_IMPORTS, SPEC).pairs.height == kept


@pytest.mark.parametrize(
    ("changes", "of", "reason"),
    [
        ({"reward": float("nan")}, "candidates", "reward_not_finite"),
        ({"reward": float("inf")}, "candidates", "reward_not_finite"),
        ({"reward": None}, "candidates", "reward_not_finite"),
        ({"finish_reason": "length"}, "candidates", "unfinished"),
        ({"response": " \n"}, "candidates", "empty"),
        ({"response": "x"}, "candidates", "identical_text"),
    ],
)
def test_an_unusable_candidate_is_dropped_with_its_reason(changes: dict[str, Any], of: str, reason: str) -> None:
    rows = table(candidate("a", "x", 1.0), candidate("a", "y", **{"reward": 9.0} | changes), *GOOD)  # fault 18
    built = build_pairs(rows, NO_IMPORTS, SPEC)
    assert sides(built.pairs) == [("good", "bad")]
    assert counted(built.reasons) == {(of, reason): 1, ("pairs", "one_usable_response"): 1}
    assert dict(built.fates.rows()) == {"z": "kept", "a": "one_usable_response"}


def test_ties_are_dropped() -> None:  # fault 18
    rows = table(candidate("a", "x", 1.0), candidate("a", "y", 1.0), *GOOD)
    built = build_pairs(rows, NO_IMPORTS, replace(SPEC, margin=0.0))
    assert counted(built.reasons) == {("pairs", "tie"): 1}
    assert dict(built.fates.rows())["a"] == "tie"


def test_an_instruction_without_usable_response_has_an_outcome() -> None:
    rows = table(candidate("a", "x", float("nan")), *GOOD)
    assert dict(build_pairs(rows, NO_IMPORTS, SPEC).fates.rows())["a"] == "no_usable_response"


def test_zero_pairs_are_an_error_with_the_reasons() -> None:  # faults 8 and 18
    rows = table(candidate("a", "x", 1.0), candidate("a", "y", float("nan")))
    with pytest.raises(ValueError, match=r"no preference pair.*\n.*not_finite +1\n.*one_usable_response +1"):
        non_empty_pairs(build_pairs(rows, NO_IMPORTS, SPEC))


def test_no_candidates_are_an_error() -> None:
    with pytest.raises(ValueError, match="there were no candidates and no imported pairs"):
        non_empty_pairs(build_pairs(table(), NO_IMPORTS, SPEC))


def test_a_group_is_in_one_split_and_the_share_is_near_the_setting() -> None:
    rows = table(
        *(
            candidate(f"{n}", text, reward, group=f"g{n // 2}")
            for n in range(800)
            for text, reward in [("x", 1.0), ("y", 0.0)]
        )
    )
    built = build_pairs(rows, NO_IMPORTS, PairSpec(validation_share=0.1, max_pairs=800))
    assert built.pairs.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    # 400 groups at 0.1: mean 40, standard deviation 6
    assert 22 <= built.pairs.filter(pl.col("split") == "validation").height / 2 <= 58


def test_the_limit_is_exact_counted_and_does_not_depend_on_order() -> None:
    rows = table(*(candidate(f"{n}", text, reward) for n in range(30) for text, reward in [("x", 1.0), ("y", 0.0)]))
    spec = replace(SPEC, max_pairs=10)
    built = build_pairs(rows, NO_IMPORTS, spec)
    assert built.pairs.height == 10
    assert counted(built.reasons) == {("limit", "over_max_pairs"): 20}
    assert built.fates["fate"].value_counts().sort("count").rows() == [("kept", 10), ("over_max_pairs", 20)]
    turned = build_pairs(rows.reverse(), NO_IMPORTS, spec)
    assert set(turned.pairs["pair_id"]) == set(built.pairs["pair_id"])


def test_imported_pairs_keep_the_groups_of_the_filter() -> None:
    built = build_pairs(table(*GOOD), imported(brought("Add 1 and 2.", "3", "4")), SPEC)
    row = built.pairs.filter(pl.col("source") == "mine.jsonl").row(0, named=True)
    assert (row["chosen"], row["rejected"], row["margin"], row["split"]) == ("3", "4", None, "train")
    assert row["group"] == "import-i0"


def test_length_bias_by_hand() -> None:
    pairs = imported(brought("a", "1234", "12"), brought("b", "é", "12345"), brought("c", "123", "12"))
    # differences 2, -4 and 1 characters: mean -1/3, longer in 2 of 3
    assert length_bias(pairs) == pytest.approx({"length_difference_characters": -1 / 3, "chosen_longer_rate": 2 / 3})


def test_reasons_as_a_table() -> None:
    reasons = pl.DataFrame({"of": ["pairs"], "reason": ["tie"], "count": [12]})
    assert reasons_text(reasons).split() == ["pairs", "tie", "12"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("margin", -0.1), ("margin", float("nan")), ("max_pairs", 0), ("strategy", "random"), ("validation_share", 1.0)],
)
def test_an_invalid_spec_names_its_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"PairSpec.{field}"):
        replace(PairSpec(), **{field: value})


def test_a_pair_that_the_chat_template_refuses_is_dropped_and_counted() -> None:
    room = TokenLimits(lambda texts: [1] * len(texts), 4096, lambda _, answer: "no markup" * ("<b>" in answer))
    rows = imported(brought("Say hello.", "hello", "no", number=1), brought("Say hi.", "hi", "<b>no</b>", number=2))
    built = build_pairs(table(), rows, SPEC, room)
    assert built.pairs["chosen"].to_list() == ["hello"]
    assert ("context", "refused_by_chat_template", 1) in built.reasons.rows()


def test_a_pair_longer_than_the_context_is_dropped_and_counted() -> None:
    words = TokenLimits(lambda texts: [len(text.split()) for text in texts], context_tokens=10)
    # 3 words asked, 2 kept for the template: 5 are left for a response
    spec = replace(SPEC, template_tokens=2)
    fits, too_long = "one two three four five", "one two three four five six"
    rows = imported(
        brought("Say some words.", fits, "no", number=1), brought("Say more words.", "no", too_long, number=2)
    )
    built = build_pairs(table(), rows, spec, words)
    assert built.pairs["chosen"].to_list() == [fits]
    assert ("context", "too_long_for_base", 1) in built.reasons.rows()
