"""Opponent and candidate on the same test items."""

import polars as pl

from synth_assets.promotion.policy import PromotionPolicy
from synth_assets.records import PairedTest
from synth_assets.statistics import paired_test

SPLIT = "test"


def fight(
    opponent: pl.DataFrame, candidate: pl.DataFrame, policy: PromotionPolicy, default: tuple[str, str]
) -> PairedTest | None:
    """The paired test on the test split of the suite that decides; None where the two share no scored item.

    The two were asked the same items or there is no test: an item that only one of them has makes it None.

    Args:
        opponent: ITEM_SCORES rows of one model.
        candidate: the same of the other.
        policy: names suite and metric, or leaves them open.
        default: suite and metric where the policy leaves them open.
    """
    suite, metric = policy.suite or default[0], policy.metric or default[1]
    keys = ["item_id", "cluster"]
    first, second = (
        rows.filter(suite=suite, split=SPLIT, metric=metric).select(*keys, "score") for rows in (opponent, candidate)
    )
    both = first.join(second, on=keys, suffix="_second").sort(keys)
    if not both.height == first.height == second.height:
        return None
    scored = both.drop_nulls(["score", "score_second"])
    if scored.is_empty():
        return None
    names = str(opponent["model"][0]), str(candidate["model"][0])
    values = scored["score"].to_list(), scored["score_second"].to_list()
    return paired_test(names, (suite, SPLIT, metric), *values, scored["cluster"].to_list())
