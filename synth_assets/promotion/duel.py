"""Opponent and candidate on the same test items."""

import polars as pl

from synth_assets.promotion.policy import PromotionPolicy
from synth_assets.records import PairedTest
from synth_assets.statistics import mcnemar, paired_bootstrap

SPLIT = "test"


def fight(
    opponent: pl.DataFrame, candidate: pl.DataFrame, policy: PromotionPolicy, default: tuple[str, str]
) -> PairedTest | None:
    """The paired test on the test split of the suite that decides; None where the two share no scored item.

    Exact McNemar where all scores are 0 or 1, else a paired bootstrap by cluster. The two were asked the same items or
    there is no test: an item that only one of them has makes it None.

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
    before, after = scored["score"].to_list(), scored["score_second"].to_list()
    names = str(opponent["model"][0]), str(candidate["model"][0])
    result = mcnemar([score > 0.5 for score in before], [score > 0.5 for score in after])
    binary = all(score in (0.0, 1.0) for score in (*before, *after))
    test = PairedTest(
        first=names[0],
        second=names[1],
        suite=suite,
        split=SPLIT,
        metric=metric,
        n=result.n,
        only_first=result.only_first,
        only_second=result.only_second,
        difference=result.difference,
        p_value=result.p_value,
    )
    if binary:
        return test
    drawn = paired_bootstrap(before, after, scored["cluster"].to_list())
    return PairedTest(**{**vars(test), "difference": drawn.difference, "p_value": drawn.p_value, "test": "bootstrap"})
