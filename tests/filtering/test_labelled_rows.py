"""The rules on hand-labelled rows of the kinds that occur in real runs.

The rules were tuned on the half "tuned". The half "held out" was written afterwards and only counted: 30 of 30 good
rows kept, 23 of 25 junk rows and 35 of 35 rows in other languages rejected.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

FirstReason = Callable[..., str]
ROWS = [json.loads(line) for line in Path(__file__).with_name("labelled_rows.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("half", "label", "least", "most"),
    [
        ("tuned", "good", 0, 0.02),
        ("tuned", "junk", 0.97, 1),
        ("tuned", "foreign", 0.99, 1),
        ("held out", "good", 0, 0.05),
        ("held out", "junk", 0.9, 1),
        ("held out", "foreign", 0.99, 1),
    ],
)
def test_share_of_rejected_rows(first_reason: FirstReason, half: str, label: str, least: float, most: float) -> None:
    rows = [row for row in ROWS if (row["half"], row["label"]) == (half, label)]
    assert len(rows) >= 25
    reasons = [first_reason(row["instruction"], row["response"]) for row in rows]
    assert least <= sum(map(bool, reasons)) / len(rows) <= most
