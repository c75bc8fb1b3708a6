"""Are candidates scored, and do pairs teach what is better rather than noise or the validation set?"""

from typing import get_args

import dagster as dg
import polars as pl

from checks.filtering import SPLITS
from checks.great_expectations import between, expectation_checks, one_of, present, unique, written
from checks.grouping import checks_of
from checks.leakage import crossings, leakage_result, leaks_between_splits, sides_of
from resources.hardware import Hardware
from synth_assets.llm.protocols import FinishReason
from synth_assets.schemas.preference_rounds import OFF_POLICY, ROUNDS, PreferenceRound
from synth_assets.schemas.records import AdapterRecord

PAIRS_PER_ROW = 0.5  # the reference study makes 600 pairs of 1,000 rows
MIN_SCORED_RATE = 0.98
MIN_VARYING_RATE = 0.5
MARGIN_TOLERANCE = 1e-6
MAX_TEMPERATURE = 2

CANDIDATE_EXPECTATIONS = (
    present("candidate_id", "candidate_ids_are_present"),
    unique("candidate_id", "candidate_ids_are_unique"),
    present("row_id", "row_ids_are_present"),
    present("group", "groups_are_present"),
    one_of("split", "candidates_are_of_train_rows", ["train"]),
    written("instruction", "instructions_are_written"),
    between("temperature", "temperatures_are_in_range", 0, MAX_TEMPERATURE),
    between("response_tokens", "response_tokens_are_counted", 0),
    one_of("finish_reason", "finish_reasons_are_known", get_args(FinishReason)),
)

PAIR_EXPECTATIONS = (
    present("pair_id", "pair_ids_are_present"),
    unique("pair_id", "pair_ids_are_unique"),
    present("group", "groups_are_present"),
    present("source", "sources_are_present"),
    present("split", "splits_are_present"),
    one_of("split", "splits_are_known", SPLITS),
    written("instruction", "instructions_are_written"),
    written("chosen", "chosen_responses_are_written"),
    present("rejected", "rejected_responses_are_present"),
)

REFERENCE_EXPECTATIONS = (
    present("pair_id", "pair_ids_are_present"),
    unique("pair_id", "pair_ids_are_unique"),
    present("chosen_logprob", "chosen_logprobs_are_present"),
    present("rejected_logprob", "rejected_logprobs_are_present"),
    between("chosen_logprob", "chosen_logprobs_are_of_probabilities", None, 0),
    between("rejected_logprob", "rejected_logprobs_are_of_probabilities", None, 0),
)


def rewards_are_finite(candidates: pl.LazyFrame) -> dg.AssetCheckResult:
    """Nearly every candidate has a reward that is a number; the others make no pair."""
    scored = pl.col("reward").is_finite().fill_null(value=False).mean()
    rate = candidates.select(scored).collect().item() or 0.0
    return dg.AssetCheckResult(
        passed=rate >= MIN_SCORED_RATE,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"scored_rate": rate, "wanted": MIN_SCORED_RATE},
    )


def rewards_tell_candidates_apart(candidates: pl.LazyFrame) -> dg.AssetCheckResult:
    """Most instructions have candidates of different reward; one that scores all alike teaches nothing."""
    finite = pl.col("reward").filter(pl.col("reward").is_finite())
    spread = candidates.group_by("row_id").agg(varies=finite.n_unique() > 1)
    rate = spread.select(pl.col("varies").mean()).collect().item() or 0.0
    return dg.AssetCheckResult(
        passed=rate >= MIN_VARYING_RATE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"instructions_with_different_rewards_rate": rate, "wanted": MIN_VARYING_RATE},
    )


def enough_pairs(pairs: pl.LazyFrame, hardware: Hardware) -> dg.AssetCheckResult:
    """There are train pairs for at least half of the tier's minimum of rows; with fewer, DPO waits."""
    train = pl.col("split") == "train"
    found = pairs.select(train.sum()).collect().item()
    wanted = int(PAIRS_PER_ROW * hardware.limits().min_rows)
    return dg.AssetCheckResult(
        passed=found >= max(1, wanted),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"train_pairs": found, "wanted": wanted},
    )


def chosen_differs_from_rejected(pairs: pl.LazyFrame) -> dg.AssetCheckResult:
    """No pair prefers a response to itself; white space around it aside."""
    return _none_of(pairs, pl.col("chosen").str.strip_chars() == pl.col("rejected").str.strip_chars())


def margins_are_positive(pairs: pl.LazyFrame) -> dg.AssetCheckResult:
    """The margin is chosen minus rejected reward and above 0; imported pairs, which have no rewards, have none."""
    chosen, rejected, margin = pl.col("chosen_reward"), pl.col("rejected_reward"), pl.col("margin")
    unscored = chosen.is_null() & rejected.is_null() & margin.is_null()
    right = margin.is_finite() & (margin > 0) & ((chosen - rejected - margin).abs() <= MARGIN_TOLERANCE)
    return _none_of(pairs, ~(unscored | right.fill_null(value=False)))


def no_leakage_between_splits(
    pairs: pl.LazyFrame, sft_dataset: pl.LazyFrame, benchmark_items: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Nothing that SFT or DPO trains on is held out by either, exactly, nearly or by group; nor is it a benchmark's.

    The pairs' own validation split is of instructions that SFT was trained on: it watches DPO alone.
    """
    own = ("pairs train", "pairs validation")
    sides = {
        **sides_of(sft_dataset, ["response"], {f"SFT {split}": split for split in SPLITS}),
        **sides_of(pairs, ["chosen", "rejected"], dict(zip(own, SPLITS, strict=True))),
    }
    found = crossings(sides, benchmark_items)
    suites = found.splits[len(sides) :]
    return leakage_result(
        {
            "shared_instructions": found.found(*own),
            "shared_groups": leaks_between_splits(pairs, pl.col("group"), SPLITS),
            "sft_validation_instructions": found.found("SFT validation", "pairs train"),
            "benchmark_items": [text for side in own for suite in suites for text in found.found(side, suite)],
        },
        found.table(),
    )


def every_pair_has_its_reference(reference: pl.LazyFrame, pairs: pl.LazyFrame) -> dg.AssetCheckResult:
    """Each pair has its log-probabilities under the reference, without which DPO has no loss for it."""
    missing = (
        pairs.drop_nulls("pair_id").join(reference, on="pair_id", how="anti").select("pair_id").collect()["pair_id"]
    )
    return dg.AssetCheckResult(
        passed=missing.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "pairs_without_reference": len(missing),
            "examples": dg.MetadataValue.json(missing.head(5).to_list()),
        },
    )


def candidates_are_the_policys_own(candidates: pl.LazyFrame, policy: AdapterRecord) -> dg.AssetCheckResult:
    """Each candidate was written by the very weights that are trained further: its model names their fingerprint."""
    own = pl.col("model").str.ends_with(f"+{policy.fingerprint}").fill_null(value=False)
    others = candidates.filter(~own).select("candidate_id", "model").collect()
    return dg.AssetCheckResult(
        passed=others.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "written_by_others": others.height,
            "policy": policy.fingerprint,
            "examples": dg.MetadataValue.json(others.head(5).to_dicts()),
        },
    )


def _none_of(pairs: pl.LazyFrame, wrong: pl.Expr) -> dg.AssetCheckResult:
    """Passed where no pair is `wrong`; shows how many are, and some of their ids."""
    found = pairs.filter(wrong).select("pair_id").collect()["pair_id"]
    return dg.AssetCheckResult(
        passed=found.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"wrong_pairs": len(found), "examples": dg.MetadataValue.json(found.head(5).to_list())},
    )


def checks_of_round(one: PreferenceRound) -> list[dg.AssetChecksDefinition]:
    """What a round's candidates, pairs and reference must be.

    Nothing of an on-policy round blocks but data that would mislead: where its policy failed there are no rows, and its
    DPO fails by itself with that reason.
    """
    first = one == OFF_POLICY
    keys = {name: getattr(one, name) for name in ("candidates", "pairs", "policy", "reference")}
    return [
        expectation_checks(one.candidates, CANDIDATE_EXPECTATIONS, row_id="candidate_id"),
        checks_of(
            one.candidates,
            blocking=(rewards_are_finite,) if first else (candidates_are_the_policys_own,),
            watching=(rewards_tell_candidates_apart,) if first else (rewards_are_finite, rewards_tell_candidates_apart),
            keys=keys,
        ),
        expectation_checks(one.pairs, PAIR_EXPECTATIONS, row_id="pair_id"),
        checks_of(
            one.pairs,
            blocking=(
                *((enough_pairs,) if first else ()),
                chosen_differs_from_rejected,
                margins_are_positive,
                no_leakage_between_splits,
            ),
            watching=() if first else (enough_pairs,),
            keys=keys,
        ),
        # not blocking: where the policy failed there are none, and DPO fails by itself with that reason
        expectation_checks(one.reference, REFERENCE_EXPECTATIONS, row_id="pair_id", blocking=False),
        checks_of(one.reference, watching=(every_pair_has_its_reference,), keys=keys),
    ]


PREFERENCE_ROUND_CHECKS = [definition for one in ROUNDS for definition in checks_of_round(one)]
