"""How often promotion is wrong: simulated models of known accuracy before the policy that is in force.

    python perf/promotion.py [SIMULATIONS]

False promotions: candidate and opponent of equal true accuracy, with independent outcomes. Power: the candidate is
five points better. For each suite's numbers of test and sealed items the two rates are printed with their
Clopper-Pearson bounds, and, where the power is below .8, the effect that the suite does see. Fails where the upper
bound of a false rate is above .06.
Models that resemble each other disagree on fewer items: both rates are then better than those printed here.

Guards: what becomes of a candidate that is as good as its opponent, or worse, by the number of a guard's items; the two
differ on one item in ten, or on as many as the loss needs.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from synth_assets.evals.guards import GuardResult
from synth_assets.evals.suites import find_suites
from synth_assets.schemas.records import CheckResult
from synth_assets.stages.promotion.policy import (
    PairedEvidence,
    PromotionCandidate,
    PromotionPolicy,
    decide,
    needs_sealed_items,
)
from synth_assets.stats.paired import non_inferiority, paired_test
from synth_assets.stats.power import minimum_detectable_effect

SIMULATIONS = 2_000
ACCURACY = 0.5  # where outcomes vary most
EFFECT = 0.05
HIGHEST_FALSE_RATE = 0.06
POWER = 0.8
SUITES = ("world_instructions", "instruction_following", "knowledge", "agent_scenarios")
CANDIDATE = PromotionCandidate("lora_adapter", "2", "c")
OPPONENT = PromotionCandidate("base", "", "o")
CHECKED = [CheckResult("sft_dataset", "d", "enough_rows", "passed")]


GUARD_ITEMS = (60, 100, 308, 1_000)
GUARD_LOSSES = (0.0, 0.02, 0.05, 0.1)
GUARD_SHARE = 0.1  # of the simulations: each resamples ten thousand times
DISAGREE = 0.1


def promoted(n: int, sealed: int, effect: float, policy: PromotionPolicy, random: np.random.Generator) -> bool:
    """What the policy decides on two models of independent outcomes, of which the candidate is better by `effect`."""
    first, second = outcomes(n, effect, random)
    duel = paired_test(("base", "lora_adapter"), ("s", "test", "m"), first, second, list(map(str, range(n))))
    trial = PairedEvidence(duel)
    decision = decide(CANDIDATE, OPPONENT, trial, CHECKED, policy)
    if needs_sealed_items(decision, trial):
        names = list(map(str, range(sealed)))
        found = non_inferiority(*outcomes(sealed, effect, random), names, policy.sealed_margin)
        trial = PairedEvidence(duel, sealed=[GuardResult("s", "m", "sealed", found)])
        decision = decide(CANDIDATE, OPPONENT, trial, CHECKED, policy)
    return decision.outcome == "promoted"


def outcomes(n: int, effect: float, random: np.random.Generator) -> tuple[list[float], list[float]]:
    """0 or 1 for each item, of the opponent and of the candidate."""
    accuracies = ACCURACY - effect / 2, ACCURACY + effect / 2
    first, second = ((random.random(n) < accuracy).astype(float).tolist() for accuracy in accuracies)
    return first, second


def rate(n: int, sealed: int, effect: float, simulations: int, random: np.random.Generator) -> tuple[int, float, float]:
    """Promotions among the simulations, and the 2.5 and 97.5 % bounds of their rate (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    policy = PromotionPolicy(minimum_sealed_items=min(PromotionPolicy.minimum_sealed_items, sealed))
    count = sum(promoted(n, sealed, effect, policy, random) for _ in range(simulations))
    low = float(beta.ppf(0.025, count, simulations - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, simulations - count)) if count < simulations else 1.0
    return count, low, high


def guard_lines(simulations: int, random: np.random.Generator) -> Iterator[str]:
    """For each number of items and each true loss, how often the guard is held, not shown and lost."""
    margin = PromotionPolicy().knowledge_margin
    for n in GUARD_ITEMS:
        for loss in GUARD_LOSSES:
            differ = max(DISAGREE, loss)
            shares = [(differ + loss) / 2, (differ - loss) / 2, 1 - differ]
            verdicts: Counter[str] = Counter()
            for _ in range(simulations):
                drawn = random.choice([-1.0, 1.0, 0.0], n, p=shares)
                first, second = np.maximum(-drawn, 0), np.maximum(drawn, 0)
                found = non_inferiority(first.tolist(), second.tolist(), list(map(str, range(n))), margin)
                verdicts[found.verdict] += 1
            told = ", ".join(f"{name} {verdicts[name] / simulations:.2f}" for name in ("held", "not shown", "lost"))
            yield f"guard of {n} items, true loss {100 * loss:.0f} points: {told}"


def main(simulations: int) -> int:
    """Print a line for each suite; 1 where promotions of nothing better are too many."""
    random = np.random.default_rng(0)
    policy, started, worst = PromotionPolicy(), time.process_time(), 0.0
    print(f"{simulations} simulations each; minimum effect {policy.minimum_effect}, alpha {policy.alpha}")
    for suite in find_suites(SUITES):
        splits = Counter(item.split for item in suite.items())
        n, sealed = splits["test"], splits["sealed"]
        if n < policy.minimum_items:
            print(f"{suite.name}: {n} items, of which the policy refuses to decide (wants {policy.minimum_items})")
            continue
        false, low, high = rate(n, sealed, 0.0, simulations, random)
        found, found_low, found_high = rate(n, sealed, EFFECT, simulations, random)
        worst = max(worst, high)
        power = found / simulations
        line = f"{suite.name}: {n} items, {sealed} sealed"
        line += f"; false promotions {false / simulations:.4f} ({low:.4f} to {high:.4f})"
        line += f"; power at {100 * EFFECT:.0f} points {power:.3f} ({found_low:.3f} to {found_high:.3f})"
        if power < POWER:
            line += f"; sees {100 * minimum_detectable_effect(n, 2 * ACCURACY * (1 - ACCURACY)):.1f} points"
        print(line)
    for line in guard_lines(max(1, round(GUARD_SHARE * simulations)), random):
        print(line)
    print(f"{time.process_time() - started:.0f} CPU-seconds")
    return int(worst > HIGHEST_FALSE_RATE)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SIMULATIONS))
