from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.embedded import world
from synth_assets.evals.suite import Item, Suite, choice_score, item_table, items_of, null_scores
from synth_assets.evals.suites import SUITES, find_suites
from synth_assets.schemas.tables import BENCHMARK_ITEMS

EMBEDDED = ("world_instructions", "world_choice")
QUESTION = Item("toy/test/0", "toy", "test", "choice", "2 + 2 = ?", answer="1", cluster="sum", choices=("3", "4"))


def toy(*items: Item) -> Suite:
    return Suite("toy", "choice", ("acc",), items=lambda folder=None: items, score=choice_score)


def test_every_embedded_suite_has_both_splits_and_no_prompt_in_common() -> None:
    table = item_table(find_suites(EMBEDDED))
    assert table.schema == BENCHMARK_ITEMS
    for suite in find_suites(EMBEDDED):
        prompts = {
            split: set(table.filter(suite=suite.name, split=split)["prompt"]) for split in ("validation", "test")
        }
        assert all(len(found) >= 200 for found in prompts.values())
        assert not prompts["validation"] & prompts["test"]


def test_sealed_instructions_share_no_question_with_other_splits() -> None:
    table = item_table(find_suites(EMBEDDED))
    sealed = table.filter(split="sealed")
    assert sealed["suite"].unique().to_list() == ["world_instructions"]
    assert sealed.height == 430
    assert not set(sealed["cluster"]) & set(table.filter(pl.col("split") != "sealed")["cluster"])
    assert {world.split_of(key) for key in sealed["cluster"]} == {"validation"}, "held out of all training text"


def test_whole_suite_can_be_sealed() -> None:
    other = replace(QUESTION, item_id="other/test/0", suite="other", prompt="3 + 3 = ?")
    suites = [toy(QUESTION), replace(toy(other), name="other")]
    table = item_table(suites, sealed=["other"])
    assert table.select("suite", "split").rows() == [("toy", "test"), ("other", "sealed")]
    with pytest.raises(ValueError, match="toy cannot be sealed: the first suite selects the candidate"):
        item_table(suites, sealed=["toy"])
    with pytest.raises(ValueError, match="mmlu cannot be sealed: it is not one of the suites"):
        item_table(suites, sealed=["mmlu"])


def test_items_round_trip_through_the_table() -> None:
    items = [*SUITES["world_choice"].items(), *SUITES["world_instructions"].items()]
    assert items_of(item_table([SUITES["world_choice"], SUITES["world_instructions"]])) == items


@pytest.mark.parametrize("name", EMBEDDED)
def test_null_models_score_at_chance(name: str) -> None:
    suite = SUITES[name]
    found = null_scores(suite, [item for item in suite.items() if item.split == "test"])
    chance = 0.25 if suite.kind == "choice" else 0.0
    # a constant choice is right by chance: 3 standard errors of 308 items are .074; refusing suits harmful requests
    assert all(score[suite.metrics[0]] <= chance + 0.08 for score in found.values())


def test_right_answers_score_one() -> None:
    choice, instructions = SUITES["world_choice"], SUITES["world_instructions"]
    first = next(iter(choice.items()))
    assert choice.score(first, first.choices[int(first.answer)]) == {"acc": 1.0}
    item = next(
        i for i in instructions.items() if i.prompt.startswith("What is the capital of") and i.prompt.endswith("?")
    )
    subject = item.prompt.removeprefix("What is the capital of ").removesuffix("?")
    assert instructions.score(item, f"The capital of {subject} is {item.answer}.") == {"strict": 1.0, "lenient": 1.0}
    assert instructions.score(item, item.answer) == {"strict": 0.0, "lenient": 1.0}
    assert instructions.score(item, "I do not know.") == {"strict": 0.0, "lenient": 0.0}


def test_null_scores_match_hand_arithmetic_and_exclude_metrics_that_do_not_apply() -> None:
    second = replace(QUESTION, item_id="toy/test/1", prompt="1 + 2 = ?", answer="0")
    third = replace(QUESTION, item_id="toy/test/2", prompt="of no answer")

    def score(item: Item, response: str) -> dict[str, float | None]:
        return {"acc": None} if item == third else choice_score(item, response)

    suite = replace(toy(), score=score)
    # the constant is the first choice: wrong, right, not counted
    assert null_scores(suite, [QUESTION, second, third])["constant"] == {"acc": 0.5}
    with pytest.raises(ValueError, match="no items"):
        null_scores(suite, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "train"}, "split 'train'"),
        ({"suite": "other"}, "has suite 'other'"),
        ({"kind": "generation"}, "kind 'generation', expected 'toy' and 'choice'"),
        ({"prompt": "  "}, "empty prompt"),
        ({"choices": ("4",)}, "at least two choices, all different"),
        ({"choices": ("4", "4")}, "at least two choices, all different"),
        ({"answer": "2"}, "answer '2', expected an index below 2"),
        ({"answer": "-1"}, "answer '-1', expected an index below 2"),
    ],
)
def test_malformed_item_raises(change: dict[str, object], message: str) -> None:
    assert item_table([toy(QUESTION)]).height == 1
    other = replace(QUESTION, item_id="toy/test/1")
    with pytest.raises(ValueError, match=message):
        item_table([toy(other, replace(QUESTION, **change))])


def test_duplicate_item_ids_raise() -> None:
    with pytest.raises(ValueError, match="have the same id"):
        item_table([toy(QUESTION, replace(QUESTION, prompt="3 + 1 = ?"))])


def test_missing_suite_file_raises() -> None:
    def missing(folder: Path | None = None) -> list[Item]:
        raise FileNotFoundError("mmlu/test.csv")

    with pytest.raises(FileNotFoundError, match="mmlu"):
        item_table([toy(QUESTION), replace(toy(), name="mmlu", items=missing)])
    with pytest.raises(ValueError, match="no test items"):
        item_table([toy()])
    with pytest.raises(ValueError, match="no benchmark suites"):
        item_table([])


def test_item_hash_follows_content_and_not_the_id() -> None:
    assert replace(QUESTION, item_id="x", cluster="y").item_hash == QUESTION.item_hash
    for change in ({"prompt": "2 + 3 = ?"}, {"choices": ("3", "5")}, {"answer": "0"}, {"split": "validation"}):
        assert replace(QUESTION, **change).item_hash != QUESTION.item_hash


def test_unknown_suite_raises() -> None:
    assert [suite.name for suite in find_suites(["world_choice"])] == ["world_choice"]
    with pytest.raises(ValueError, match="unknown suite 'mmluu'; expected one of world_instructions"):
        find_suites(["mmluu"])
