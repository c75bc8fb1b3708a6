"""Decisions of reviewers: what a reject, a keep and an edit change, and what they cannot change."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from synth_assets.schemas.tables import REVIEWS
from synth_assets.stages.filtering.apply import NO_DECISIONS, FilterResult
from synth_assets.stages.filtering.reviews import REVIEWED, SOFT_RULES, UNUSABLE, PersonDecisions
from synth_assets.stages.filtering.rules import RULES
from synth_assets.storage.manifests import content_hash
from tests.filtering.conftest import fates

Rows = Callable[..., pl.DataFrame]
Filtered = Callable[..., FilterResult]
GOOD, OTHER = ("Tell me one fact about Jupiter.", "Jupiter is large."), ("Name a bird of the sea.", "A gull.")
ECHO = ("Repeat the words red and blue and green.", "Repeat the words red and blue and green.")
MARK = ("Name a bird.", "A crow.</s>")
PERSON = ("Who wrote this?", "Write to jane.doe@gmail.com about it.")


def decisions(*reviews: tuple[str, str] | tuple[str, str, str | None, str | None]) -> PersonDecisions:
    records = [
        {"row_id": row_id, "verdict": verdict, "note": "why", "by": "ada", "at": "2026-11-28T06:00:00+00:00"}
        | dict(zip(("instruction", "response"), texts, strict=False))
        for row_id, verdict, *texts in reviews
    ]
    return PersonDecisions(table=pl.DataFrame(records, schema=REVIEWS))


def test_the_rules_are_soft_safety_or_unusable() -> None:
    reasons = {rule.reason for rule in RULES}
    assert reasons >= UNUSABLE
    assert {rule.reason for rule in RULES if rule.family == "safety"} == reasons - SOFT_RULES - UNUSABLE
    assert "personal_data" not in SOFT_RULES


def test_without_decisions_the_tables_are_the_same(filtered: Filtered, rows_of: Rows) -> None:
    rows = rows_of(GOOD, ECHO, OTHER, GOOD)
    plain, given = filtered(rows), filtered(rows, people=decisions())
    assert content_hash(plain.kept) == content_hash(given.kept)
    assert content_hash(plain.rejected) == content_hash(given.rejected)
    assert plain.fates.equals(given.fates)
    assert NO_DECISIONS.edit(lazy := rows.lazy()) is lazy


def test_a_rejected_row_names_the_reviewer(filtered: Filtered, rows_of: Rows) -> None:
    result = filtered(rows_of(GOOD, OTHER), people=decisions(("r000", "reject")))
    assert fates(result) == {"r000": REVIEWED, "r001": "kept"}
    assert result.rejected.collect()["detail"].to_list() == ["rejected by ada on 2026-11-28: why"]


def test_the_duplicate_of_a_rejected_row_stays(filtered: Filtered, rows_of: Rows) -> None:
    result = filtered(rows_of(GOOD, GOOD), people=decisions(("r000", "reject")))
    assert fates(result) == {"r000": REVIEWED, "r001": "kept"}


def test_a_rule_rejects_before_a_reviewer(filtered: Filtered, rows_of: Rows) -> None:
    result = filtered(rows_of(GOOD, MARK), people=decisions(("r001", "reject")))
    assert fates(result)["r001"] == "control_token_in_response"


def test_keep_overrides_a_soft_rule(filtered: Filtered, rows_of: Rows) -> None:
    rows = rows_of(GOOD, ECHO)
    assert fates(filtered(rows))["r001"] == "echo"
    result = filtered(rows, people=decisions(("r001", "keep")))
    assert fates(result) == {"r000": "kept", "r001": "kept"}
    assert result.kept.collect()["score"].is_between(0, 1).all()


@pytest.mark.parametrize(
    ("row", "reason"),
    [(MARK, "control_token_in_response"), (PERSON, "personal_data"), (("", "A."), "empty_instruction")],
)
def test_keep_does_not_override_safety_or_unusable_rows(
    filtered: Filtered, rows_of: Rows, row: tuple[str, str], reason: str
) -> None:
    assert fates(filtered(rows_of(GOOD, row), people=decisions(("r001", "keep"))))["r001"] == reason


def test_keep_does_not_override_benchmark_items_and_recalls(
    filtered: Filtered, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:
    kept = decisions(("r000", "keep"), ("r001", "keep"))
    people = PersonDecisions({"r001": "recalled by ada"}, kept.table)
    third = ("Tell me one fact about Paris.", "Paris is old.")
    result = filtered(rows_of(GOOD, OTHER, third), items_of(GOOD[0]), people=people)
    assert fates(result) == {"r000": "benchmark_item", "r001": "recalled", "r002": "kept"}


def test_of_duplicates_the_kept_row_stays(filtered: Filtered, rows_of: Rows) -> None:
    rows = rows_of(GOOD, GOOD)
    assert fates(filtered(rows)) == {"r000": "kept", "r001": "exact_duplicate"}
    assert fates(filtered(rows, people=decisions(("r001", "keep")))) == {"r000": "exact_duplicate", "r001": "kept"}


def test_an_edited_row_is_filtered_again_with_its_new_text(filtered: Filtered, rows_of: Rows) -> None:
    facts = {"response_tokens": 9, "instruction_tokens": 5, "response_finish_reason": "length"}
    rows = rows_of(MARK, GOOD, **facts)
    people = decisions(("r000", "edit", None, "A crow."), ("r001", "edit", MARK[0], "A crow.</s>"))
    result = filtered(rows, people=people)
    assert fates(result) == {"r000": "kept", "r001": "control_token_in_response"}
    (kept,) = result.kept.collect().to_dicts()
    assert (kept["instruction"], kept["response"]) == ("Name a bird.", "A crow.")
    assert (kept["response_tokens"], kept["response_finish_reason"]) == (None, None)
    assert kept["instruction_tokens"] == 5


def test_keep_after_an_edit_keeps_the_new_text(filtered: Filtered, rows_of: Rows) -> None:
    result = filtered(rows_of(GOOD, OTHER), people=decisions(("r000", "keep", *ECHO)))
    assert fates(result)["r000"] == "kept"
    assert result.kept.collect()["response"][0] == ECHO[1]


def test_many_edits_apply_in_chunks_of_a_file(rows_of: Rows, tmp_path: Path) -> None:
    rows = rows_of(*(OTHER for _ in range(5_000)))
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=512)
    people = decisions(*((f"r{place:03d}", "edit", None, f"Gull {place}.") for place in range(0, 5_000, 100)))
    edited = people.edit(pl.scan_parquet(tmp_path / "rows.parquet")).collect(engine="streaming")
    assert edited.schema == rows.schema
    assert edited["response"].to_list()[::100] == [f"Gull {place}." for place in range(0, 5_000, 100)]
    assert edited["response"][1] == "A gull."
