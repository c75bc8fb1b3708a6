"""Rules by meaning, with an embedder that counts words: two orders of the same words mean the same."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from synth_assets.schemas.tables import PAIRS, SFT_ROWS
from synth_assets.stages.filtering import decisions
from synth_assets.stages.filtering.apply import FilterResult
from synth_assets.stages.filtering.features import TokenLimits
from synth_assets.stages.filtering.preferences import PairContext, filter_preferences
from synth_assets.stages.filtering.reviews import PersonDecisions
from synth_assets.stages.filtering.semantic import Semantics, SemanticSpec
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.storage.manifests import content_hash
from synth_assets.text import embeddings
from tests.filtering.conftest import WordEmbedder, fates

Filtered = Callable[..., FilterResult]
Rows = Callable[..., pl.DataFrame]
BY_MEANING = Semantics(WordEmbedder(), SemanticSpec())
TEXTS = (
    ("Tell me a fact about old iron.", "Iron is a metal."),
    ("A fact about old iron tell me.", "Iron rusts."),  # the first row in another order
    ("Which bird sings at night?", "The nightingale."),
    ("At night which bird sings?", "The nightingale sings."),  # the third
    ("Name two rivers of France.", "Seine and Rhone."),
)


def test_the_lowest_row_of_those_that_mean_the_same_is_kept(filtered: Filtered, rows_of: Rows) -> None:
    result = filtered(rows_of(*TEXTS), semantics=BY_MEANING)
    assert fates(result) == {
        "r000": "kept",
        "r001": "semantic_duplicate",
        "r002": "kept",
        "r003": "semantic_duplicate",
        "r004": "kept",
    }
    details = dict(result.rejected.select("row_id", "detail").collect().iter_rows())
    assert details == {"r001": "repeats r000, similarity 1.0", "r003": "repeats r002, similarity 1.0"}
    assert result.reasons == {"semantic_duplicate": 2}


def test_without_an_embedder_nothing_changes(filtered: Filtered, rows_of: Rows) -> None:
    assert set(fates(filtered(rows_of(*TEXTS))).values()) == {"kept"}


@pytest.mark.parametrize(("chunk", "block"), [(1, 1), (2, 3), (2048, 2)])
def test_neither_order_nor_chunks_nor_blocks_matter(
    filtered: Filtered, rows_of: Rows, monkeypatch: pytest.MonkeyPatch, chunk: int, block: int
) -> None:
    expected = filtered(rows_of(*TEXTS), semantics=BY_MEANING)
    monkeypatch.setattr(decisions, "CHUNK_ROWS", chunk)
    monkeypatch.setattr(embeddings, "BLOCK_ROWS", block)
    assert content_hash(filtered(rows_of(*TEXTS), semantics=BY_MEANING).kept) == content_hash(expected.kept)
    assert fates(filtered(rows_of(*TEXTS).reverse(), semantics=BY_MEANING)) == fates(expected)


@pytest.mark.parametrize(("threshold", "fate"), [(0.83, "semantic_duplicate"), (0.84, "kept")])
def test_the_threshold_is_the_smallest_cosine_of_duplicates(
    filtered: Filtered, rows_of: Rows, threshold: float, fate: str
) -> None:
    # five of six words are shared: cosine 5/6
    rows = rows_of(("Tell me about my iron kettle.", "It is old."), ("Kettle iron my about tell them.", "It is new."))
    semantics = Semantics(WordEmbedder(), SemanticSpec(semantic_duplicate_similarity=threshold))
    assert fates(filtered(rows, semantics=semantics))["r001"] == fate


def test_a_paraphrase_of_an_item_is_rejected_with_the_item(filtered: Filtered, rows_of: Rows, items_of: Rows) -> None:
    items = items_of("An item.", "Of France name two rivers.")
    result = filtered(rows_of(*TEXTS), items, semantics=BY_MEANING)
    row = result.rejected.filter(reason="semantic_benchmark_item").select("row_id", "detail").collect().row(0)
    assert row == ("r004", "i1: similarity 1.00")


def test_a_row_of_a_conversation_is_compared_with_its_earlier_turns(filtered: Filtered, rows_of: Rows) -> None:
    history = [{"role": "user", "content": "Iron?"}, {"role": "assistant", "content": "Yes, with some old rust."}]
    more = rows_of(("A fact about old iron tell me.", "Iron rusts."), history=history)
    rows = pl.concat([rows_of(TEXTS[0]), more.with_columns(row_id=pl.lit("r001"))])
    assert fates(filtered(rows, semantics=BY_MEANING))["r001"] == "kept"


def test_a_text_that_is_too_long_is_not_compared(filtered: Filtered, rows_of: Rows) -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen"
    rows = rows_of((f"Sort {long}.", "Eight, eleven."), (f"{' '.join(reversed(long.split()))} sort.", "Five."))
    assert set(fates(filtered(rows, semantics=BY_MEANING)).values()) == {"kept"}


def test_a_recalled_row_takes_its_paraphrases_with_it(filtered: Filtered, rows_of: Rows) -> None:
    result = filtered(rows_of(*TEXTS), people=PersonDecisions({"r003": "wrong"}), semantics=BY_MEANING)
    assert (fates(result)["r002"], fates(result)["r003"]) == ("semantic_duplicate", "recalled")


def test_a_pair_whose_instruction_paraphrases_an_item_is_rejected(items_of: Rows, tmp_path: Path) -> None:
    pair = {"pair_id": "p0", "source": "mine", "history": [], "instruction": TEXTS[2][0]}
    pairs = pl.LazyFrame([{**pair, "chosen": "The nightingale does.", "rejected": "No bird does."}], schema=PAIRS)
    items = items_of("At night which bird sings?")
    base = TokenLimits(lambda texts: [len(text.split()) for text in texts], 4096)
    for semantics, reasons in ((None, {}), (BY_MEANING, {"semantic_benchmark_item": 1})):
        context = PairContext(pl.LazyFrame(schema=SFT_ROWS), items, 0.5, semantics)
        assert filter_preferences(pairs, context, FilterSpec(), base, tmp_path).reasons == reasons


@pytest.mark.parametrize("value", [0.0, 1.1, True])
def test_a_threshold_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"SemanticSpec\.semantic_item_similarity must be above 0 and at most 1"):
        SemanticSpec(semantic_item_similarity=value)
