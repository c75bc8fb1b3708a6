from pathlib import Path

import polars as pl
import pytest

from synth_assets.cli.row_tables import (
    NOT_SET,
    PAGE_ROWS,
    TABLES,
    Query,
    count_rows,
    filter_choices,
    item_prompt,
    read_page,
    read_row,
)
from synth_assets.schemas.tables import BENCHMARK_ITEMS, INSTRUCTIONS, ITEM_SCORES

RAW, ANSWERS = TABLES["raw"], TABLES["answers"]


def raw_row(place: int, batch: str) -> dict[str, object]:
    text = {"instruction": f"Question {place} (a+b)?", "response": "Paris" if place == 3 else "Rome"}
    origin = {"source": "magpie", "batch": batch, "topic": "maths" if place % 2 else None}
    return {"row_id": f"{batch}{place:03d}", **text, **origin}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "tables" / "raw_instructions"
    folder.mkdir(parents=True)
    for batch in ("first", "second"):
        rows = [raw_row(place, batch) for place in range(60)]
        pl.DataFrame(rows, schema=INSTRUCTIONS).write_parquet(folder / f"{batch}.parquet")
    items = [{"item_id": f"{split}-1", "split": split, "prompt": "P", "answer": "A"} for split in ("test", "sealed")]
    pl.DataFrame(items, schema=BENCHMARK_ITEMS).write_parquet(tmp_path / "tables" / "benchmark_items.parquet")
    scores = [
        {"model": model, "metric": "strict", "item_id": f"{split}-1", "split": split, "response": model}
        for model in ("base", "lora_adapter")
        for split in ("test", "sealed")
    ]
    pl.DataFrame(scores, schema=ITEM_SCORES).write_parquet(tmp_path / "tables" / "benchmark_scores.parquet")
    return tmp_path


def ids(home: Path, query: Query) -> list[str]:
    return [row["row_id"] for row in read_page(home, RAW, query).rows]


def test_pages_follow_the_order_of_the_files(home: Path) -> None:
    pages = [read_page(home, RAW, Query(page=number)) for number in (1, 2, 3, 4)]
    assert [(len(page.rows), page.more) for page in pages] == [(50, True), (50, True), (20, False), (0, False)]
    assert pages[1].rows[10]["row_id"] == "second000"
    assert count_rows(home, RAW, Query()) == 120 == 2 * PAGE_ROWS + 20


def test_a_search_takes_the_text_literally_and_ignores_case(home: Path) -> None:
    assert ids(home, Query("paris")) == ["first003", "second003"]
    assert ids(home, Query("question 7 (A+b)")) == ["first007", "second007"]
    assert ids(home, Query("second059")) == ["second059"]
    assert count_rows(home, RAW, Query("Question . ")) == 0


def test_filters_combine_and_match_missing_values(home: Path) -> None:
    assert count_rows(home, RAW, Query(filters={"batch": "first", "topic": "maths", "source": ""})) == 30
    assert ids(home, Query("rome", {"topic": NOT_SET, "batch": "second"}))[:2] == ["second000", "second002"]
    assert count_rows(home, RAW, Query(filters={"response": "Paris"})) == 120, "no filter of this table"


def test_rows_are_chosen_and_left_out_by_id(home: Path) -> None:
    assert ids(home, Query(only=frozenset({"first003", "first001"}))) == ["first001", "first003"]
    assert ids(home, Query(only=frozenset())) == []
    assert count_rows(home, RAW, Query(without=frozenset({"first003"}))) == 119


def test_the_choices_of_a_filter_follow_the_file(home: Path) -> None:
    assert filter_choices(home, RAW)["topic"] == [(NOT_SET, 60), ("maths", 60)]
    path = home / "tables" / "raw_instructions" / "third.parquet"
    pl.DataFrame([raw_row(1, "third")], schema=INSTRUCTIONS).write_parquet(path)
    assert filter_choices(home, RAW)["batch"][-1] == ("third", 1)


def test_a_row_is_read_with_all_columns(home: Path) -> None:
    row = read_row(home, RAW, ["second003"])
    assert row is not None
    assert (row["response"], set(row)) == ("Paris", set(INSTRUCTIONS))
    assert read_row(home, RAW, ["nothing"]) is None
    with pytest.raises(ValueError, match="named by item_id, model, metric, got 1"):
        read_row(home, ANSWERS, ["test-1"])


def test_sealed_items_are_not_shown(home: Path) -> None:
    assert {row["item_id"] for row in read_page(home, ANSWERS, Query()).rows} == {"test-1"}
    assert count_rows(home, ANSWERS, Query(filters={"split": "sealed"})) == 0
    assert filter_choices(home, ANSWERS)["split"] == [("test", 2)]
    assert read_row(home, ANSWERS, ["test-1", "base", "strict"]) is not None
    assert read_row(home, ANSWERS, ["sealed-1", "base", "strict"]) is None
    assert item_prompt(home, "test-1")["prompt"] == "P"
    assert item_prompt(home, "sealed-1") == {}


def test_a_table_that_was_never_made_is_empty(tmp_path: Path) -> None:
    for view in TABLES.values():
        assert read_page(tmp_path, view, Query()).rows == []
        assert count_rows(tmp_path, view, Query()) == 0
        assert set(filter_choices(tmp_path, view)) == set(view.filters)
    assert item_prompt(tmp_path, "x") == {}
