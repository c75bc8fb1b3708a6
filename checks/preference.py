"""Checks of the stage preference: rewards of candidates, margins and leakage of pairs, reference log-probabilities."""

from typing import get_args

import dagster as dg
import polars as pl

from checks.filtering import SPLITS
from checks.great_expectations import between, expectation_checks, one_of, present, unique, written
from checks.grouping import checks_of
from checks.leakage import crossings, leakage_result, leaks_between_splits, sides_of
from checks.sentences import RUN_AGAIN, none_allowed, sentence
from resources.hardware import Hardware
from synth_assets.llm.protocols import FinishReason
from synth_assets.schemas.preference_rounds import OFF_POLICY, ROUNDS, PreferenceRound
from synth_assets.schemas.records import AdapterRecord

PAIRS_PER_ROW = 0.5
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
    """Check that nearly every candidate has a finite reward; the others form no pair."""
    scored = pl.col("reward").is_finite().fill_null(value=False).mean()
    rate = candidates.select(scored).collect().item() or 0.0
    return dg.AssetCheckResult(
        passed=rate >= MIN_SCORED_RATE,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(
            f"{rate:.1%} of the candidates have a finite reward",
            f"at least {MIN_SCORED_RATE:.0%} needed",
            "Look at the check reward_model_is_sane; texts beyond the context of the reward model get no reward",
            passed=rate >= MIN_SCORED_RATE,
        ),
        metadata={"scored_rate": rate, "wanted": MIN_SCORED_RATE},
    )


def rewards_tell_candidates_apart(candidates: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that most instructions have candidates of different reward; equal rewards form no pair."""
    finite = pl.col("reward").filter(pl.col("reward").is_finite())
    spread = candidates.group_by("row_id").agg(varies=finite.n_unique() > 1)
    rate = spread.select(pl.col("varies").mean()).collect().item() or 0.0
    return dg.AssetCheckResult(
        passed=rate >= MIN_VARYING_RATE,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentence(
            f"{rate:.1%} of the instructions have candidates of different reward",
            f"at least {MIN_VARYING_RATE:.0%} expected",
            "The others form no pair. Sample more candidates or higher temperatures (response_candidates)",
            passed=rate >= MIN_VARYING_RATE,
        ),
        metadata={"instructions_with_different_rewards_rate": rate, "wanted": MIN_VARYING_RATE},
    )


def enough_pairs(pairs: pl.LazyFrame, hardware: Hardware) -> dg.AssetCheckResult:
    """Check that there are PAIRS_PER_ROW train pairs per row of the tier's minimum; with fewer, DPO is blocked."""
    train = pl.col("split") == "train"
    train_pairs = pairs.select(train.sum()).collect().item()
    min_pairs = int(PAIRS_PER_ROW * hardware.limits().min_rows)
    passed = train_pairs >= max(1, min_pairs)
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(
            f"{train_pairs:,} pairs to train on",
            f"at least {max(1, min_pairs):,} needed",
            "Generate more instructions (synth run --samples N), sample more candidates, or lower the margin "
            "(preference_pairs)",
            passed=passed,
        ),
        metadata={"train_pairs": train_pairs, "wanted": min_pairs},
    )


def chosen_differs_from_rejected(pairs: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that no pair has equal responses, ignoring surrounding white space."""
    return _none_of(pairs, pl.col("chosen").str.strip_chars() == pl.col("rejected").str.strip_chars())


def margins_are_positive(pairs: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that the margin is chosen minus rejected reward and above 0; imported pairs have neither."""
    chosen, rejected, margin = pl.col("chosen_reward"), pl.col("rejected_reward"), pl.col("margin")
    unscored = chosen.is_null() & rejected.is_null() & margin.is_null()
    consistent = margin.is_finite() & (margin > 0) & ((chosen - rejected - margin).abs() <= MARGIN_TOLERANCE)
    return _none_of(pairs, ~(unscored | consistent.fill_null(value=False)))


def no_leakage_between_splits(
    pairs: pl.LazyFrame, sft_dataset: pl.LazyFrame, benchmark_items: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Check that no training text of SFT or DPO is held out by either or in a benchmark: exactly, nearly or by group.

    The pairs' validation split has instructions that SFT was trained on: it only validates DPO.
    """
    pair_splits = ("pairs train", "pairs validation")
    sides = {
        **sides_of(sft_dataset, ["response"], {f"SFT {split}": split for split in SPLITS}),
        **sides_of(pairs, ["chosen", "rejected"], dict(zip(pair_splits, SPLITS, strict=True))),
    }
    crossing = crossings(sides, benchmark_items)
    suites = crossing.splits[len(sides) :]
    return leakage_result(
        {
            "shared_instructions": crossing.shared_texts(*pair_splits),
            "shared_groups": leaks_between_splits(pairs, pl.col("group"), SPLITS),
            "sft_validation_instructions": crossing.shared_texts("SFT validation", "pairs train"),
            "benchmark_items": [
                text for side in pair_splits for suite in suites for text in crossing.shared_texts(side, suite)
            ],
        },
        crossing.table(),
    )


def every_pair_has_its_reference(reference: pl.LazyFrame, pairs: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that each pair has its reference log-probabilities, which the DPO loss needs."""
    missing = (
        pairs.drop_nulls("pair_id").join(reference, on="pair_id", how="anti").select("pair_id").collect()["pair_id"]
    )
    return dg.AssetCheckResult(
        passed=missing.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        description=none_allowed(missing.to_list(), "pairs have no reference log-probabilities", RUN_AGAIN),
        metadata={
            "pairs_without_reference": len(missing),
            "examples": dg.MetadataValue.json(missing.head(5).to_list()),
        },
    )


def candidates_are_the_policys_own(candidates: pl.LazyFrame, policy: AdapterRecord) -> dg.AssetCheckResult:
    """Check that each candidate was generated by the policy that is trained further, by its fingerprint."""
    own = pl.col("model").str.ends_with(f"+{policy.fingerprint}").fill_null(value=False)
    others = candidates.filter(~own).select("candidate_id", "model").collect()
    return dg.AssetCheckResult(
        passed=others.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        description=none_allowed(
            others["candidate_id"].to_list(), f"candidates are not of the policy {policy.fingerprint}", RUN_AGAIN
        ),
        metadata={
            "written_by_others": others.height,
            "policy": policy.fingerprint,
            "examples": dg.MetadataValue.json(others.head(5).to_dicts()),
        },
    )


def _none_of(pairs: pl.LazyFrame, wrong: pl.Expr) -> dg.AssetCheckResult:
    """Return a result that passes if no pair is `wrong`, with their number and some ids."""
    wrong_ids = pairs.filter(wrong).select("pair_id").collect()["pair_id"]
    return dg.AssetCheckResult(
        passed=wrong_ids.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        description=none_allowed(wrong_ids.to_list(), "pairs are wrong", RUN_AGAIN),
        metadata={"wrong_pairs": len(wrong_ids), "examples": dg.MetadataValue.json(wrong_ids.head(5).to_list())},
    )


def checks_of_round(round_: PreferenceRound) -> list[dg.AssetChecksDefinition]:
    """Return the checks of a round's candidates, pairs and reference.

    In an on-policy round only wrong data blocks: if its policy failed there are no rows, and its DPO fails with that
    reason.
    """
    first = round_ == OFF_POLICY
    keys = {name: getattr(round_, name) for name in ("candidates", "pairs", "policy", "reference")}
    return [
        expectation_checks(round_.candidates, CANDIDATE_EXPECTATIONS, row_id="candidate_id"),
        checks_of(
            round_.candidates,
            blocking=(rewards_are_finite,) if first else (candidates_are_the_policys_own,),
            watching=(rewards_tell_candidates_apart,) if first else (rewards_are_finite, rewards_tell_candidates_apart),
            keys=keys,
        ),
        expectation_checks(round_.pairs, PAIR_EXPECTATIONS, row_id="pair_id"),
        checks_of(
            round_.pairs,
            blocking=(
                *((enough_pairs,) if first else ()),
                chosen_differs_from_rejected,
                margins_are_positive,
                no_leakage_between_splits,
            ),
            watching=() if first else (enough_pairs,),
            keys=keys,
        ),
        # not blocking: without rows, because the policy failed, DPO fails with that reason
        expectation_checks(round_.reference, REFERENCE_EXPECTATIONS, row_id="pair_id", blocking=False),
        checks_of(round_.reference, watching=(every_pair_has_its_reference,), keys=keys),
    ]


PREFERENCE_ROUND_CHECKS = [definition for round_ in ROUNDS for definition in checks_of_round(round_)]
