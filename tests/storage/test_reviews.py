from pathlib import Path
from typing import Any

import pytest

from synth_assets.schemas.tables import REVIEWS
from synth_assets.storage.reviews import (
    Review,
    add_review,
    review_log,
    review_text,
    reviews_in_force,
    standing_reviews,
    verdicts_by_reviewer,
)

AT = "2026-11-28T06:00:00+00:00"


def review(row_id: str, verdict: Any, by: str = "ada", **fields: Any) -> Review:  # noqa: ANN401
    return Review(row_id, verdict, by, AT, **fields)


def in_force(tmp_path: Path, *reviews: Review) -> dict[str, tuple[str, str | None, str | None, str]]:
    log = tmp_path / "reviews.jsonl"
    for each in reviews:
        add_review(log, each)
    table = reviews_in_force(log)
    assert table.schema == REVIEWS
    return {row[0]: row[1:] for row in table.select("row_id", "verdict", "instruction", "response", "by").rows()}


def test_no_log_gives_an_empty_table(tmp_path: Path) -> None:
    assert in_force(tmp_path) == {}


def test_the_last_verdict_on_a_row_counts_whoever_gave_it(tmp_path: Path) -> None:
    actual = in_force(tmp_path, review("b", "keep"), review("a", "reject"), review("b", "reject", "ben"))
    assert actual == {"a": ("reject", None, None, "ada"), "b": ("reject", None, None, "ben")}
    assert review_log(tmp_path / "reviews.jsonl")[2] == review("b", "reject", "ben")


def test_a_verdict_after_an_edit_keeps_its_texts(tmp_path: Path) -> None:
    edits = review("a", "edit", instruction="Q"), review("a", "edit", "ben", response="A")
    assert in_force(tmp_path, *edits, review("a", "keep")) == {"a": ("keep", "Q", "A", "ada")}


def test_clear_withdraws_the_decisions_of_its_reviewer_only(tmp_path: Path) -> None:
    reviews = review("a", "reject", "ben"), review("a", "edit", response="A"), review("a", "clear"), review("b", "keep")
    assert in_force(tmp_path, *reviews, review("b", "clear")) == {"a": ("reject", None, None, "ben")}


def test_each_reviewer_has_one_verdict_on_a_row() -> None:
    standing = standing_reviews([review("a", "reject"), review("a", "keep", "ben"), review("a", "keep")])
    assert verdicts_by_reviewer(standing) == {"a": {"ada": "keep", "ben": "keep"}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"verdict": "maybe"}, "verdict must be one of keep, reject, edit, clear, got 'maybe'"),
        ({"verdict": "edit"}, "an edit needs"),
        ({"verdict": "keep", "response": "A"}, "no other verdict may have one"),
        ({"verdict": "edit", "response": " "}, "must not be empty"),
        ({"verdict": "keep", "by": " "}, "name of the reviewer"),
    ],
)
def test_a_wrong_review_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Review(**{"row_id": "a", "by": "ada", "at": AT, **fields})


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    log = tmp_path / "reviews.jsonl"
    log.write_text('{"row_id": "a"}\n')
    with pytest.raises(ValueError, match="line 1 is not an entry"):
        review_log(log)


def test_a_line_names_the_person_and_the_day() -> None:
    assert review_text("reject", "wrong", "ada", AT) == "rejected by ada on 2026-11-28: wrong"
    assert review_text("keep", "", "ada", AT) == "kept by ada on 2026-11-28"
