"""Reviews: a log of the decisions of people on single rows, and the decisions in force."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from synth_assets.schemas.tables import REVIEWS
from synth_assets.storage.append_log import append_entry, damaged, read_entries

LOG = "reviews.jsonl"  # in SYNTH_HOME
Verdict = Literal["keep", "reject", "edit", "clear"]


@dataclass(frozen=True)
class Review:
    """An entry of the log.

    Attributes:
        row_id: the row.
        verdict: "clear" withdraws the earlier decisions of this reviewer on this row.
        by: the reviewer.
        at: time, ISO 8601, UTC.
        note: why.
        instruction: new text of an edit; None: unchanged.
        response: new text of an edit; None: unchanged.
    """

    row_id: str
    verdict: Verdict
    by: str
    at: str
    note: str = ""
    instruction: str | None = None
    response: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown verdict, a missing name, or an edit without a text."""
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"verdict must be one of {', '.join(get_args(Verdict))}, got {self.verdict!r}")
        if not self.row_id or not self.by.strip():
            raise ValueError("a review needs a row and the name of the reviewer")
        texts = [text for text in (self.instruction, self.response) if text is not None]
        if (self.verdict == "edit") != bool(texts):
            raise ValueError("an edit needs a new instruction or response, and no other verdict may have one")
        if not all(text.strip() for text in texts):
            raise ValueError("the new text must not be empty; reject the row instead")


def review_log(path: Path) -> list[Review]:
    """Return all entries, oldest first; empty if there is no log.

    Raises:
        ValueError: a line is not an entry; names file and line.
    """
    reviews: list[Review] = []
    for number, entry in enumerate(read_entries(path), start=1):
        try:
            reviews.append(Review(**entry))
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged(path, number, error) from error
    return reviews


def add_review(path: Path, review: Review) -> None:
    """Append an entry."""
    append_entry(path, asdict(review))


def standing_reviews(log: Iterable[Review]) -> dict[str, list[Review]]:
    """Return the reviews of each row that were not withdrawn, oldest first; rows without any are left out."""
    rows: dict[str, list[Review]] = {}
    for review in log:
        earlier = rows.setdefault(review.row_id, [])
        if review.verdict == "clear":
            rows[review.row_id] = [other for other in earlier if other.by != review.by]
        else:
            earlier.append(review)
    return {row_id: reviews for row_id, reviews in rows.items() if reviews}


def verdicts_by_reviewer(standing: Mapping[str, Iterable[Review]]) -> dict[str, dict[str, str]]:
    """Return the last verdict of each reviewer by row: row id -> reviewer -> verdict."""
    return {row_id: {review.by: review.verdict for review in reviews} for row_id, reviews in standing.items()}


def reviews_in_force(path: Path) -> pl.DataFrame:
    """Return REVIEWS, by row id: the last verdict on each row, whoever gave it, and the texts of the last edit."""
    rows = [_in_force(reviews) for reviews in standing_reviews(review_log(path)).values()]
    return pl.DataFrame(rows, schema=REVIEWS).sort("row_id")


def review_text(verdict: str, note: str, by: str, at: str) -> str:
    """Return a line about a review, as in the rejection of the row."""
    done = {"keep": "kept", "reject": "rejected", "edit": "edited"}[verdict]
    return f"{done} by {by} on {at[:10]}" + (f": {note}" if note else "")


def _in_force(reviews: list[Review]) -> dict[str, str | None]:
    texts: dict[str, str | None] = {"instruction": None, "response": None}
    for review in reviews:
        texts |= {name: text for name in texts if (text := getattr(review, name)) is not None}
    last = reviews[-1]
    facts = {"row_id": last.row_id, "verdict": last.verdict, "note": last.note, "by": last.by, "at": last.at}
    return {**facts, **texts}
