"""Dataset card: numbers worked by hand from a few rows."""

import polars as pl
import pytest
import yaml

from synth_assets.schemas.tables import BENCHMARK_ITEMS, REJECTED, SFT_ROWS
from synth_assets.stages.filtering.dataset_card import CardFacts, dataset_card
from synth_assets.stages.filtering.diversity import diversity_map, measure_diversity
from tests.filtering.conftest import WordEmbedder

ITEMS = pl.DataFrame(
    [{"item_id": f"i{n}", "suite": "quiz" if n < 3 else "sums"} for n in range(4)], schema=BENCHMARK_ITEMS
)
FACTS = CardFacts("v1", {"benchmark_cover": 0.5}, {"seed": 42}, {"filtered_instructions": "f1"})


def rows(*records: dict[str, object]) -> pl.LazyFrame:
    return pl.LazyFrame(
        [{"source": "magpie", "batch": "first", "split": "train", **row} for row in records], schema=SFT_ROWS
    )


KEPT = rows(
    {"group": "a", "model": "embedded:teacher", "revision": "r1", "seed": 1, "temperature": 1.0, "response_tokens": 4},
    {"group": "a", "model": "embedded:teacher", "revision": "r1", "seed": 2, "temperature": 0.8, "response_tokens": 8},
    {"group": "b", "model": "embedded:teacher", "revision": "r1", "seed": 2, "temperature": 1.0, "split": "validation"},
    {"group": "c", "source": "mine|x.csv", "batch": "imported"},
)
DROPPED = pl.LazyFrame(
    [
        {"row_id": "x1", "reason": "echo", "detail": "0.93 is above 0.8"},
        {"row_id": "x2", "reason": "benchmark_item", "detail": "i1: all of it"},
        {"row_id": "x3", "reason": "benchmark_item", "detail": "i1: 0.60 of its 8-grams"},
        {"row_id": "x4", "reason": "recalled", "detail": "recalled by ada on 2026-11-20: wrong"},
    ],
    schema=REJECTED,
)


def test_every_number_is_counted_from_the_rows() -> None:
    card = dataset_card(KEPT, DROPPED, ITEMS, FACTS)
    for line in (
        "| magpie | first | embedded:teacher at r1 | 0.8, 1 | 2 | 3 |",
        r"| mine\|x.csv | imported | not recorded | - | - | 1 |",
        "4 of 8 rows were kept: a pass rate of 50.0%.",
        r"| benchmark\_item | benchmarks | 2 | 25.00% |",
        "| echo | content | 1 | 12.50% |",
        "| recalled | recalled by a person | 1 | 12.50% |",
        "2 rows were rejected because they contain one of 1 benchmark items at a cover of 0.5 of an item's 8-grams.",
        "| quiz | 3 |",
        "| train | 3 | 2 |",
        "| validation | 1 | 1 |",
        "response 6.",
        r"| filtered\_instructions | f1 |",
    ):
        assert line in card


def test_the_header_has_the_fields_of_the_hub() -> None:
    _, header, _ = dataset_card(KEPT, DROPPED, ITEMS, FACTS).split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts["size_categories"] == ["n<1K"]
    assert facts["language"] == ["en"]
    assert "magpie" in facts["tags"]
    assert facts["dataset_info"]["splits"] == [
        {"name": "train", "num_examples": 3},
        {"name": "validation", "num_examples": 1},
    ]


def test_known_licences_are_listed() -> None:
    card = dataset_card(KEPT, DROPPED, ITEMS, FACTS)
    assert "- magpie: MIT" in card
    assert r"- mine\|x.csv: not recorded: ask who imported the file" in card
    other = dataset_card(rows({"group": "a", "model": "owner/chat", "revision": "r1"}), DROPPED, ITEMS, FACTS)
    assert "- magpie: that of the outputs of owner/chat; see its model page" in other


def test_a_dataset_without_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="the dataset has no rows"):
        dataset_card(rows(), DROPPED, ITEMS, FACTS)


def test_with_an_embedder_the_card_has_diversity_and_paraphrases() -> None:
    texts = ("Name a bird.", "A bird name.", "Which rivers flow through France?", "one " * 20)
    kept = rows(*({"group": "a", "instruction": text} for text in texts))
    diversity = measure_diversity(kept, WordEmbedder())
    spec = {"embedder": "words@1", "semantic_item_similarity": 0.8}
    dropped = pl.LazyFrame([{"row_id": "x1", "reason": "semantic_benchmark_item"}], schema=REJECTED)
    card = dataset_card(kept, dropped, ITEMS, CardFacts("v1", spec, {"seed": 42}, {}, diversity))
    for line in (
        " 1 more were rejected because their instruction is a paraphrase of an item: a cosine of at least 0.8 by",
        r"| semantic\_benchmark\_item | benchmarks | 1 | 20.00% |",
        "1 are longer than the model reads",
        # two texts alike, one of other words: distances 0, 0, 1; Vendi score as in tests/text/test_embeddings.py
        "| all | 3 | 0.333 | 1.9 |",
        "| first | 3 | 0.333 | 1.9 |",
        "(embedding_map.png)",
        "an embedding model detects most paraphrases",
    ):
        assert line in card
    assert "does not detect a paraphrase" not in card


def test_the_map_shows_the_share_of_variance() -> None:
    kept = rows({"instruction": "one"}, {"instruction": "two"}, {"instruction": "one two", "batch": "second"})
    diversity = measure_diversity(kept, WordEmbedder())
    assert diversity is not None
    assert sum(diversity.explained) == pytest.approx(1)
    [panel] = diversity_map(diversity).axes
    assert panel.get_title() == "PCA of 3 instruction embeddings"
    assert panel.get_xlabel() == f"component 1 ({diversity.explained[0]:.1%} of variance)"
    assert measure_diversity(rows({"instruction": "one"}), WordEmbedder()) is None
