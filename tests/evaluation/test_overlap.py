import polars as pl
import pytest

from synth_assets.evals.suite import Item, Suite, choice_score, item_table
from synth_assets.schemas.records import Metric
from synth_assets.schemas.tables import ITEM_SCORES, PAIRS, SFT_ROWS
from synth_assets.stages.evaluation.overlap import overlap_table, overlapping_items, training_texts, without_overlap

LONG = "which of the seven old bridges of the town was built last"


def items(*prompts: str) -> pl.DataFrame:
    made = [
        Item(f"toy/test/{n}", "toy", "test", "choice", prompt, answer="0", cluster=str(n), choices=("a", "b"))
        for n, prompt in enumerate(prompts)
    ]
    return item_table([Suite("toy", "choice", ("acc",), items=lambda folder=None: made, score=choice_score)])


@pytest.mark.parametrize(
    ("text", "overlaps"),
    [
        ("Tell me which of the seven old bridges of the hill", True),  # eight words in a row
        ("Tell me which of the seven old bridges of a town", False),  # seven
        ("nothing of the kind", False),
        (LONG.upper(), True),
    ],
)
def test_eight_words_in_a_row_are_an_overlap(text: str, overlaps: bool) -> None:
    assert overlapping_items(items(LONG, "what is two plus two"), [text]) == ({"toy/test/0"} if overlaps else set())


def test_a_short_item_overlaps_as_a_whole() -> None:
    table = items("what is two plus two", "name a colour")
    assert overlapping_items(table, ["What is two plus two?", "name a colour of the rainbow"]) == {"toy/test/0"}


def test_a_template_is_no_overlap() -> None:
    template = "answer the following question in a single short sentence"
    table = items(*(f"{template} {word}" for word in ("alpha", "beta", "gamma", "delta")))
    assert overlapping_items(table, [template]) == set()
    assert overlapping_items(table.head(3), [template]) == {f"toy/test/{n}" for n in range(3)}


def test_training_saw_earlier_turns_and_rejected_responses_too() -> None:
    turns = [{"role": "user", "content": "turn one"}, {"role": "assistant", "content": "turn two"}]
    sft = [{"split": "train", "instruction": "asked", "response": "answered", "history": turns}]
    sft += [{"split": "validation", "instruction": "never", "response": "seen", "history": turns[:1]}]
    pair = {"split": "train", "instruction": "again", "chosen": "good", "rejected": "bad", "history": []}
    found = training_texts(pl.LazyFrame(sft, schema=SFT_ROWS), [pl.LazyFrame([pair], schema=PAIRS)])
    assert sorted(found) == ["again", "answered", "asked", "bad", "good", "turn one", "turn two"]
    assert overlapping_items(items("turn two"), found) == {"toy/test/0"}


def test_scores_without_overlap_match_hand_arithmetic() -> None:
    rows = [
        {"model": "base", "suite": "toy", "split": "test", "item_id": f"toy/test/{n}", "cluster": str(n)}
        | {"metric": "acc", "score": score}
        for n, score in enumerate([1.0, 1.0, 0.0, None])
    ]
    scores = pl.DataFrame(rows).select(
        pl.col(name) if name in rows[0] else pl.lit("", dtype).alias(name) for name, dtype in ITEM_SCORES.items()
    )
    metric = Metric("base", "toy", "test", "acc", 2 / 3, 3, 0.2, 0.9, "wilson 0.95", 0, "h", "d", "i", "run")
    (clean,) = without_overlap([metric], scores, {"toy/test/0"})
    assert (clean.value, clean.n, clean.kind, clean.mlflow_run_id) == (0.5, 2, "derived", "run")
    assert overlap_table([metric], [clean]).splitlines()[-1] == "| base | toy | acc | 0.667 | 3 | 0.500 | 2 |"
    assert without_overlap([metric], scores, {f"toy/test/{n}" for n in range(4)}) == []
    assert overlap_table([metric], []).endswith("| 0.667 | 3 | - | 0 |")
