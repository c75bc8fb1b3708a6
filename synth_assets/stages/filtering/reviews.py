"""Apply the decisions of reviewers: edited texts, rejected rows, and rows kept in spite of a rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from synth_assets.schemas.tables import REVIEWS
from synth_assets.stages.filtering.decisions import EXACT, NEAR, RowDecision
from synth_assets.stages.filtering.features import SIDES
from synth_assets.stages.filtering.rules import RULES
from synth_assets.storage.reviews import review_text

REVIEWED = "rejected_by_reviewer"  # rejection reason
UNUSABLE = frozenset(
    {
        "empty_instruction",
        "empty_response",
        "control_token_in_instruction",
        "control_token_in_response",
        "truncated_instruction",
        "truncated_response",
        "too_long_for_base",
        "refused_by_chat_template",
    }
)
"""Rules whose rows a training cannot use as they are: edit the row instead."""

SOFT_RULES = frozenset(rule.reason for rule in RULES if rule.family != "safety") - UNUSABLE
"""Rules that a reviewer's keep overrides: not safety, which includes personal data, and not UNUSABLE."""

OVERRIDDEN = SOFT_RULES | {EXACT, NEAR, REVIEWED}
"""Reasons that a keep overrides; of duplicates the kept row stays and the other one goes."""


@dataclass(frozen=True)
class PersonDecisions:
    """What people decided about rows.

    Attributes:
        recalled: reason of the recall by row_id.
        table: REVIEWS, one review by row.
    """

    recalled: Mapping[str, str] = field(default_factory=dict)
    table: pl.DataFrame = field(default_factory=REVIEWS.to_frame)

    @cached_property
    def kept(self) -> frozenset[str]:
        """Return the ids of the rows that a reviewer wants to keep."""
        return frozenset(self.table.filter(verdict="keep")["row_id"])

    @cached_property
    def rejected(self) -> dict[str, str]:
        """Return row id -> detail of the rows that a reviewer rejected."""
        rows = self.table.filter(verdict="reject").select("verdict", "note", "by", "at", "row_id").iter_rows()
        return {row_id: review_text(verdict, note, by, at) for verdict, note, by, at, row_id in rows}

    def edit(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return INSTRUCTIONS with the edited texts.

        An edited text has no token count and finish reason, as no model wrote it.
        """
        for side in SIDES:
            edits = self.table.filter(pl.col(side).is_not_null())
            if edits.is_empty():
                continue
            edited = pl.col("row_id").is_in(edits["row_id"].to_list())
            text = pl.col("row_id").replace_strict(edits["row_id"], edits[side], default=pl.col(side))
            unknown = {
                name: pl.when(~edited).then(pl.col(name)) for name in (f"{side}_tokens", f"{side}_finish_reason")
            }
            rows = rows.with_columns(text.alias(side), **unknown)
        return rows

    def reject(self, chunk: pl.DataFrame, decision: RowDecision) -> None:
        """Reject the rows of a chunk that a reviewer rejected, unless they are rejected already."""
        for index in decision.passed().tolist() if self.rejected else ():
            if detail := self.rejected.get(chunk["row_id"][index]):
                decision.reject(index, REVIEWED, detail)
