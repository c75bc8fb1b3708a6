"""Preference pairs: a better and a worse response to one instruction, or the reason why there is no such pair."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from synth_assets.llm.protocols import Refusal, refuses_nothing
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.schemas.tables import CANDIDATES, PAIRS
from synth_assets.storage.retractions import RECALLED

CANDIDATE_SOURCE = "candidates"
REASONS = pl.Schema({"of": pl.String, "reason": pl.String, "count": pl.Int64})


@dataclass(frozen=True)
class PairSpec:
    """Which two responses make a pair, and how many pairs are kept.

    A margin of 0.5 (in the reward model's unit) and 600 pairs are the settings of the study this project grew from.
    """

    margin: float = setting(0.5, "Smallest reward difference of a pair, in the reward model's unit.")
    max_pairs: int = setting(600, "Most pairs, the largest margins first.")
    strategy: Literal["best_worst", "all"] = setting("best_worst", "Pairs of one instruction.")
    validation_share: float = setting(0.1, "Share of pairs for validation, in [0, 1).")
    template_tokens: int = setting(64, "Tokens of the context kept for the chat template.")
    seed: int = setting(42, "Seed of the selection.")

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the field."""
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"PairSpec.margin is {self.margin}; it must be 0 or more")
        if self.max_pairs < 1:
            raise ValueError(f"PairSpec.max_pairs is {self.max_pairs}; it must be at least 1")
        if self.strategy not in ("best_worst", "all"):
            raise ValueError(f"PairSpec.strategy is {self.strategy!r}; it is best_worst or all")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"PairSpec.validation_share is {self.validation_share}; it must be from 0 to below 1")


class ContextWindow(NamedTuple):
    """What the base model can read.

    A counter of its tokens, how many its context holds, and why its chat template refuses turns with an answer (empty
    where it does not).
    """

    count_tokens: Callable[[Sequence[str]], list[int]]
    context_tokens: int
    refusal: Refusal = refuses_nothing


class Pairs(NamedTuple):
    """The pairs, why others were dropped (REASONS), and what became of each instruction (row_id, fate)."""

    pairs: pl.DataFrame
    reasons: pl.DataFrame
    fates: pl.DataFrame


class PairFilterResult(NamedTuple):
    """Rows that stay, and each row that does not with its `reason`."""

    kept: pl.DataFrame
    dropped: pl.DataFrame


def build_pairs(
    candidates: pl.DataFrame, imported: pl.DataFrame, spec: PairSpec, room: ContextWindow | None = None
) -> Pairs:
    """Pairs from scored candidates and from imported preferences, split by the groups of the SFT dataset.

    Args:
        candidates: CANDIDATES with rewards.
        imported: PAIRS that passed the filter, with their group, without rewards and split.
        spec: margin, number, strategy, split and seed.
        room: what the base model can read; longer pairs are dropped, never cut. None: any length will do.
    """
    usable = usable_candidates(candidates)
    pairs = choose_pairs(usable.kept, spec)
    fitting = _fitting(pl.concat([_with_ids(pairs.kept), imported.select(PAIRS.names())]), spec, room)
    limited = _limit(fitting.kept.with_columns(split=_splits(fitting.kept["group"], spec)), spec)
    reasons = _reasons(
        {
            "candidates": usable.dropped,
            "pairs": pairs.dropped,
            "context": fitting.dropped,
            "limit": limited.dropped,
        }
    )
    dropped = (limited.dropped, fitting.dropped, pairs.dropped)
    return Pairs(limited.kept, reasons, _fates(candidates, limited.kept, *dropped))


def some_pairs(built: Pairs) -> Pairs:
    """The pairs as they are; ValueError with the reasons where not one is left."""
    if built.pairs.is_empty():
        raise ValueError(f"not one preference pair is left\n{reasons_text(built.reasons)}")
    return built


def apply_retractions(rows: pl.DataFrame, recalled: Collection[str]) -> PairFilterResult:
    """Candidates or imported pairs but for those of rows that a person took back."""
    return _judged(rows, pl.when(pl.col("row_id").is_in([*recalled])).then(pl.lit(RECALLED)))


def usable_candidates(candidates: pl.DataFrame) -> PairFilterResult:
    """Candidates that can stand in a pair: finite reward, finished, not empty, no copy of an earlier one."""
    copies = pl.int_range(pl.len()).over("row_id", "response") > 0
    return _judged(
        candidates,
        pl.when(pl.col("reward").is_null() | ~pl.col("reward").is_finite())
        .then(pl.lit("reward_not_finite"))
        .when(pl.col("finish_reason") != "stop")
        .then(pl.lit("unfinished"))
        .when(pl.col("response").str.strip_chars() == "")
        .then(pl.lit("empty"))
        .when(copies)
        .then(pl.lit("identical_text")),
    )


def choose_pairs(candidates: pl.DataFrame, spec: PairSpec) -> PairFilterResult:
    """Pairs of usable candidates of the same instruction, the better one chosen; ties and small margins dropped.

    `best_worst` looks at the best and the worst of each instruction, `all` at every two.
    """
    ordered = candidates.select(CANDIDATES.names()).with_row_index("at")
    both = ordered.join(ordered, on="row_id", suffix="_other", maintain_order="left_right")
    better = (pl.col("reward") > pl.col("reward_other")) | (
        (pl.col("reward") == pl.col("reward_other")) & (pl.col("at") < pl.col("at_other"))
    )
    both = both.filter(better).with_columns(margin=pl.col("reward") - pl.col("reward_other"))
    if spec.strategy == "best_worst":
        widest_first = both.sort("margin", "at", "at_other", descending=[True, False, False])
        both = widest_first.unique("row_id", keep="first", maintain_order=True).sort("at")
    judged = _judged(
        both,
        pl.when(pl.col("margin") == 0)
        .then(pl.lit("tie"))
        .when(pl.col("margin") < spec.margin)
        .then(pl.lit("margin_too_small")),
    )
    alone = ordered.filter(pl.len().over("row_id") == 1).select("row_id", reason=pl.lit("one_usable_response"))
    return PairFilterResult(judged.kept, pl.concat([judged.dropped.select("row_id", "reason"), alone]))


def length_bias(pairs: pl.DataFrame) -> dict[str, float]:
    """How much longer the chosen side is: mean difference in characters, and the share of pairs where it is longer.

    Reward models prefer length (Singhal et al. 2023, arXiv 2310.03716); a share far above one half is a warning.
    """
    lengths = pairs.select(
        difference=pl.col("chosen").str.len_chars().cast(pl.Float64) - pl.col("rejected").str.len_chars()
    )["difference"].to_numpy()
    return {
        "length_difference_characters": float(np.mean(lengths)) if len(lengths) else 0.0,
        "chosen_longer_rate": float(np.mean(lengths > 0)) if len(lengths) else 0.0,
    }


def reasons_text(reasons: pl.DataFrame) -> str:
    """REASONS as lines of text, for messages and logs."""
    lines = [f"{of:<10} {reason:<24} {count:>7}" for of, reason, count in reasons.iter_rows()]
    return "\n".join(lines) or "nothing was dropped: there was nothing to pair"


def _judged(rows: pl.DataFrame, reason: pl.Expr) -> PairFilterResult:
    rows = rows.with_columns(reason=reason.cast(pl.String))
    return PairFilterResult(
        rows.filter(pl.col("reason").is_null()).drop("reason"), rows.filter(pl.col("reason").is_not_null())
    )


def _with_ids(both: pl.DataFrame) -> pl.DataFrame:
    sides = zip(both["candidate_id"], both["candidate_id_other"], strict=True)
    ids = [fingerprint("pair", chosen, rejected) for chosen, rejected in sides]
    return both.select(
        pl.Series("pair_id", ids, dtype=pl.String),
        "row_id",
        "group",
        split=pl.lit(None, pl.String),
        source=pl.lit(CANDIDATE_SOURCE),
        history="history",
        instruction="instruction",
        chosen="response",
        rejected="response_other",
        chosen_reward="reward",
        rejected_reward="reward_other",
        margin="margin",
    )


def _splits(groups: pl.Series, spec: PairSpec) -> pl.Series:
    """Train or validation for each row, the same for all rows of a group."""
    limit = spec.validation_share * 2**64
    places = {group: int(fingerprint("split", spec.seed, group), 16) for group in groups.unique()}
    return pl.Series("split", ["validation" if places[g] < limit else "train" for g in groups], dtype=pl.String)


def _fitting(pairs: pl.DataFrame, spec: PairSpec, room: ContextWindow | None) -> PairFilterResult:
    """Pairs of which either side, after the instruction, fits the base model's context and chat template."""
    if room is None:
        return PairFilterResult(pairs, pairs.clear().with_columns(reason=pl.lit("")))
    texts = pairs.select(_asked().alias("asked"), "chosen", "rejected")
    asked, chosen, rejected = (pl.Series(room.count_tokens(text.to_list()), dtype=pl.Int64) for text in texts)
    longest = pl.DataFrame({"chosen": chosen, "rejected": rejected}).max_horizontal() + asked + spec.template_tokens
    over = longest > room.context_tokens
    fitting = pairs.filter(~over)
    refused = pl.Series([_is_refused(row, room) for row in fitting.iter_rows(named=True)], dtype=pl.Boolean)
    dropped = [
        pairs.filter(over).with_columns(reason=pl.lit("too_long_for_base")),
        fitting.filter(refused).with_columns(reason=pl.lit("refused_by_chat_template")),
    ]
    return PairFilterResult(fitting.filter(~refused), pl.concat(dropped))


def _is_refused(pair: Mapping[str, Any], room: ContextWindow) -> bool:
    turns = [*(pair["history"] or []), {"role": "user", "content": pair["instruction"]}]
    return any(room.refusal(turns, pair[side]) for side in ("chosen", "rejected"))


def _limit(pairs: pl.DataFrame, spec: PairSpec) -> PairFilterResult:
    """At most `max_pairs`, drawn by what each pair is, so that more pairs elsewhere do not reshuffle all."""
    ranks = pl.Series("rank", [fingerprint("limit", spec.seed, one) for one in pairs["pair_id"]], dtype=pl.String)
    over = ranks.rank("ordinal") > spec.max_pairs
    return PairFilterResult(pairs.filter(~over), pairs.filter(over).with_columns(reason=pl.lit("over_max_pairs")))


def _reasons(dropped: dict[str, pl.DataFrame]) -> pl.DataFrame:
    counts = [
        rows.group_by("reason").agg(pl.lit(of).alias("of"), pl.len().cast(pl.Int64).alias("count"))
        for of, rows in dropped.items()
    ]
    return pl.concat([table.select(REASONS.names()).sort("reason") for table in counts])


def _fates(candidates: pl.DataFrame, kept: pl.DataFrame, *dropped: pl.DataFrame) -> pl.DataFrame:
    """What became of each instruction: "kept" where it is in a pair, else the first reason there is."""
    reasons = [rows.select("row_id", fate="reason") for rows in dropped]
    rest = candidates.select("row_id", fate=pl.lit("no_usable_response"))
    fates: Sequence[pl.DataFrame] = [kept.select("row_id", fate=pl.lit("kept")), *reasons, rest]
    return pl.concat(fates).unique("row_id", keep="first", maintain_order=True)


def _asked() -> pl.Expr:
    """The instruction with all that was said before it, a line for each turn."""
    said = pl.col("history").list.eval(pl.element().struct.field("content"))
    return said.fill_null([]).list.concat(pl.col("instruction")).list.join("\n")
