"""Build preference pairs from scored candidates and imported pairs, with a reason for everything dropped."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.schemas.tables import CANDIDATES, PAIRS
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.retractions import RECALLED
from synth_assets.text.token_limits import TokenLimits

CANDIDATE_SOURCE = "candidates"
REASONS = pl.Schema({"of": pl.String, "reason": pl.String, "count": pl.Int64})


@dataclass(frozen=True)
class PairSpec:
    """Margin, number and split of pairs."""

    margin: float = setting(0.5, "Smallest reward difference of a pair, in the reward model's unit.")
    max_pairs: int = setting(600, "Most pairs, the largest margins first.")
    strategy: Literal["best_worst", "all"] = setting("best_worst", "Pairs of one instruction.")
    validation_share: float = setting(0.1, "Share of pairs for validation, in [0, 1).")
    template_tokens: int = setting(64, "Tokens of the context kept for the chat template.")
    seed: int = setting(42, "Seed of the selection.")

    def __post_init__(self) -> None:
        """Raise ValueError with the name of an invalid field."""
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"PairSpec.margin must be finite and at least 0, got {self.margin}")
        if self.max_pairs < 1:
            raise ValueError(f"PairSpec.max_pairs must be at least 1, got {self.max_pairs}")
        if self.strategy not in ("best_worst", "all"):
            raise ValueError(f"PairSpec.strategy must be best_worst or all, got {self.strategy!r}")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"PairSpec.validation_share must be in [0, 1), got {self.validation_share}")


PAIRS_CODE_VERSION = fingerprint(PairSpec())
NO_IMPORTS = PAIRS.to_frame()


class Pairs(NamedTuple):
    """The pairs, the counts of dropped ones (REASONS), and the outcome of each instruction (row_id, fate)."""

    pairs: pl.DataFrame
    reasons: pl.DataFrame
    fates: pl.DataFrame


class PairFilterResult(NamedTuple):
    """Kept rows, and dropped rows with their `reason`."""

    kept: pl.DataFrame
    dropped: pl.DataFrame


def build_pairs(
    candidates: pl.DataFrame, imported: pl.DataFrame, spec: PairSpec, base: TokenLimits | None = None
) -> Pairs:
    """Build pairs from scored candidates and imported preferences, split by the groups of the SFT dataset.

    Args:
        candidates: CANDIDATES with rewards.
        imported: PAIRS that passed the filter, with their group, without rewards and split.
        spec: margin, number, strategy, split and seed.
        base: limits of the base model; longer pairs are dropped, not truncated. None: no limit.
    """
    usable = usable_candidates(candidates)
    pairs = choose_pairs(usable.kept, spec)
    fitting = _fitting(pl.concat([_with_ids(pairs.kept), imported.select(PAIRS.names())]), spec, base)
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


def limits_within(base: TokenLimits, budget: WorkBudget) -> TokenLimits:
    """Return the limits of the base model with a token count that checks the step's budget first."""

    def count_within_budget(texts: Sequence[str]) -> list[int]:
        budget.check("No pair is stored yet")
        return base.count_tokens(texts)

    return replace(base, count_tokens=count_within_budget)


def row_fates(built: Pairs, recalled: pl.DataFrame) -> pl.DataFrame:
    """Return the outcome of each instruction, followed by the recalled rows (`row_id`)."""
    return pl.concat([built.fates, recalled.with_columns(fate=pl.lit(RECALLED))])


def non_empty_pairs(built: Pairs) -> Pairs:
    """Return the pairs; raise ValueError with the reasons if there are none."""
    if built.pairs.is_empty():
        raise ValueError(f"no preference pair is left; dropped:\n{reasons_text(built.reasons)}")
    return built


def apply_retractions(rows: pl.DataFrame, recalled: Collection[str]) -> PairFilterResult:
    """Drop the candidates or imported pairs of recalled rows."""
    return _partition(rows, pl.when(pl.col("row_id").is_in([*recalled])).then(pl.lit(RECALLED)))


def usable_candidates(candidates: pl.DataFrame) -> PairFilterResult:
    """Keep the candidates with a finite reward that are finished, not empty and no copy of an earlier one."""
    copies = pl.int_range(pl.len()).over("row_id", "response") > 0
    return _partition(
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
    """Pair usable candidates of the same instruction, the better one as chosen; drop ties and small margins.

    `best_worst` pairs the best and the worst candidate of each instruction, `all` pairs every two.
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
    by_margin = _partition(
        both,
        pl.when(pl.col("margin") == 0)
        .then(pl.lit("tie"))
        .when(pl.col("margin") < spec.margin)
        .then(pl.lit("margin_too_small")),
    )
    single = ordered.filter(pl.len().over("row_id") == 1).select("row_id", reason=pl.lit("one_usable_response"))
    return PairFilterResult(by_margin.kept, pl.concat([by_margin.dropped.select("row_id", "reason"), single]))


def length_bias(pairs: pl.DataFrame) -> dict[str, float]:
    """Return the mean length difference of chosen and rejected in characters, and the share with a longer chosen one.

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
    """Return REASONS as lines of text, for messages."""
    lines = [f"{of:<10} {reason:<24} {count:>7}" for of, reason, count in reasons.iter_rows()]
    return "\n".join(lines) or "nothing: there were no candidates and no imported pairs"


def drop_summary(reasons: pl.DataFrame) -> str:
    """Return REASONS as one line for the log: "Dropped: candidates unfinished 12, pairs tie 3"."""
    counts = ", ".join(f"{of} {reason} {count:,}" for of, reason, count in reasons.iter_rows())
    return f"Dropped: {counts or 'nothing'}"


def _partition(rows: pl.DataFrame, reason: pl.Expr) -> PairFilterResult:
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
    """Return train or validation for each row, the same for all rows of a group."""
    limit = spec.validation_share * 2**64
    draws = {group: int(fingerprint("split", spec.seed, group), 16) for group in groups.unique()}
    return pl.Series("split", ["validation" if draws[g] < limit else "train" for g in groups], dtype=pl.String)


def _fitting(pairs: pl.DataFrame, spec: PairSpec, base: TokenLimits | None) -> PairFilterResult:
    """Keep the pairs of which both sides, after the prompt, fit the base model's context and chat template."""
    if base is None:
        return PairFilterResult(pairs, pairs.clear().with_columns(reason=pl.lit("")))
    texts = pairs.select(_prompt_text().alias("asked"), "chosen", "rejected")
    prompt_tokens, chosen, rejected = (pl.Series(base.count_tokens(text.to_list()), dtype=pl.Int64) for text in texts)
    longest = (
        pl.DataFrame({"chosen": chosen, "rejected": rejected}).max_horizontal() + prompt_tokens + spec.template_tokens
    )
    over = longest > base.context_tokens
    fitting = pairs.filter(~over)
    refused = pl.Series([_is_refused(row, base) for row in fitting.iter_rows(named=True)], dtype=pl.Boolean)
    dropped = [
        pairs.filter(over).with_columns(reason=pl.lit("too_long_for_base")),
        fitting.filter(refused).with_columns(reason=pl.lit("refused_by_chat_template")),
    ]
    return PairFilterResult(fitting.filter(~refused), pl.concat(dropped))


def _is_refused(pair: Mapping[str, Any], base: TokenLimits) -> bool:
    turns = [*(pair["history"] or []), {"role": "user", "content": pair["instruction"]}]
    return any(base.refusal(turns, pair[side]) for side in ("chosen", "rejected"))


def _limit(pairs: pl.DataFrame, spec: PairSpec) -> PairFilterResult:
    """Keep at most `max_pairs`, sampled by hash of each pair, so that additional pairs do not reshuffle the sample."""
    ranks = pl.Series(
        "rank", [fingerprint("limit", spec.seed, pair_id) for pair_id in pairs["pair_id"]], dtype=pl.String
    )
    over = ranks.rank("ordinal") > spec.max_pairs
    return PairFilterResult(pairs.filter(~over), pairs.filter(over).with_columns(reason=pl.lit("over_max_pairs")))


def _reasons(dropped: dict[str, pl.DataFrame]) -> pl.DataFrame:
    counts = [
        rows.group_by("reason").agg(pl.lit(of).alias("of"), pl.len().cast(pl.Int64).alias("count"))
        for of, rows in dropped.items()
    ]
    return pl.concat([table.select(REASONS.names()).sort("reason") for table in counts])


def _fates(candidates: pl.DataFrame, kept: pl.DataFrame, *dropped: pl.DataFrame) -> pl.DataFrame:
    """Return the outcome of each instruction: "kept" if it is in a pair, else the first reason."""
    reasons = [rows.select("row_id", fate="reason") for rows in dropped]
    rest = candidates.select("row_id", fate=pl.lit("no_usable_response"))
    fates: Sequence[pl.DataFrame] = [kept.select("row_id", fate=pl.lit("kept")), *reasons, rest]
    return pl.concat(fates).unique("row_id", keep="first", maintain_order=True)


def _prompt_text() -> pl.Expr:
    """Return the instruction with its earlier turns, one line each."""
    turns = pl.col("history").list.eval(pl.element().struct.field("content"))
    return turns.fill_null([]).list.concat(pl.col("instruction")).list.join("\n")
