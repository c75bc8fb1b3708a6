"""Simulate the false-promotion rate and the power of the promotion policy with models of known accuracy.

    python perf/promotion.py [SIMULATIONS]

False-promotion rate: candidate and opponent have the same true accuracy and independent outcomes. Power: the candidate
is five points better. Prints both rates with their Clopper-Pearson bounds for the number of test and sealed items of
each suite, and the minimum detectable effect if the power is below .8. Exits with 1 if the upper bound of a
false-promotion rate is above .06. Models that resemble each other disagree on fewer items; both rates are better then.

Guards: simulates the outcome of a regression guard by its number of items, for a candidate that is as good as its
opponent or worse. The two differ on one item in ten, or on as many as the loss requires.
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
ACCURACY = 0.5  # maximum variance of the outcomes
EFFECT = 0.05
MAX_FALSE_PROMOTION_RATE = 0.06
POWER = 0.8
SUITES = ("world_instructions", "instruction_following", "knowledge", "agent_scenarios")
CANDIDATE = PromotionCandidate("lora_adapter", "2", "c")
OPPONENT = PromotionCandidate("base", "", "o")
CHECKED = [CheckResult("sft_dataset", "d", "enough_rows", "passed")]


GUARD_ITEMS = (60, 100, 308, 1_000)
GUARD_LOSSES = (0.0, 0.02, 0.05, 0.1)
GUARD_SHARE = 0.1  # share of the simulations, because each draws 10,000 bootstrap samples
DISAGREEMENT_RATE = 0.1


def promoted(n: int, sealed: int, effect: float, policy: PromotionPolicy, random: np.random.Generator) -> bool:
    """Return True if the policy promotes a candidate that is better by `effect`, with independent outcomes."""
    first, second = outcomes(n, effect, random)
    comparison = paired_test(("base", "lora_adapter"), ("s", "test", "m"), first, second, list(map(str, range(n))))
    evidence = PairedEvidence(comparison)
    decision = decide(CANDIDATE, OPPONENT, evidence, CHECKED, policy)
    if needs_sealed_items(decision, evidence):
        names = list(map(str, range(sealed)))
        result = non_inferiority(*outcomes(sealed, effect, random), names, policy.sealed_margin)
        evidence = PairedEvidence(comparison, sealed=[GuardResult("s", "m", "sealed", result)])
        decision = decide(CANDIDATE, OPPONENT, evidence, CHECKED, policy)
    return decision.outcome == "promoted"


def outcomes(n: int, effect: float, random: np.random.Generator) -> tuple[list[float], list[float]]:
    """Draw 0 or 1 for each item, for the opponent and for the candidate."""
    accuracies = ACCURACY - effect / 2, ACCURACY + effect / 2
    first, second = ((random.random(n) < accuracy).astype(float).tolist() for accuracy in accuracies)
    return first, second


def rate(n: int, sealed: int, effect: float, simulations: int, random: np.random.Generator) -> tuple[int, float, float]:
    """Return the number of promotions and the 2.5 and 97.5 % bounds of their rate (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    policy = PromotionPolicy(minimum_sealed_items=min(PromotionPolicy.minimum_sealed_items, sealed))
    count = sum(promoted(n, sealed, effect, policy, random) for _ in range(simulations))
    low = float(beta.ppf(0.025, count, simulations - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, simulations - count)) if count < simulations else 1.0
    return count, low, high


def guard_lines(simulations: int, random: np.random.Generator) -> Iterator[str]:
    """Yield the rates of the guard outcomes (held, not shown, lost) by number of items and true loss."""
    margin = PromotionPolicy().knowledge_margin
    for n in GUARD_ITEMS:
        for loss in GUARD_LOSSES:
            disagreement = max(DISAGREEMENT_RATE, loss)
            shares = [(disagreement + loss) / 2, (disagreement - loss) / 2, 1 - disagreement]
            counts: Counter[str] = Counter()
            for _ in range(simulations):
                drawn = random.choice([-1.0, 1.0, 0.0], n, p=shares)
                first, second = np.maximum(-drawn, 0), np.maximum(drawn, 0)
                result = non_inferiority(first.tolist(), second.tolist(), list(map(str, range(n))), margin)
                counts[result.verdict] += 1
            rates = ", ".join(f"{name} {counts[name] / simulations:.2f}" for name in ("held", "not shown", "lost"))
            yield f"guard of {n} items, true loss {100 * loss:.0f} points: {rates}"


def main(simulations: int) -> int:
    """Print a line per suite; return 1 if a false-promotion rate is too high."""
    random = np.random.default_rng(0)
    policy, started, worst = PromotionPolicy(), time.process_time(), 0.0
    print(f"{simulations} simulations each; minimum effect {policy.minimum_effect}, alpha {policy.alpha}")
    for suite in find_suites(SUITES):
        splits = Counter(item.split for item in suite.items())
        n, sealed = splits["test"], splits["sealed"]
        if n < policy.minimum_items:
            print(f"{suite.name}: {n} items, fewer than the {policy.minimum_items} that the policy requires")
            continue
        false_promotions, low, high = rate(n, sealed, 0.0, simulations, random)
        promotions, power_low, power_high = rate(n, sealed, EFFECT, simulations, random)
        worst = max(worst, high)
        power = promotions / simulations
        line = f"{suite.name}: {n} items, {sealed} sealed"
        line += f"; false promotions {false_promotions / simulations:.4f} ({low:.4f} to {high:.4f})"
        line += f"; power at {100 * EFFECT:.0f} points {power:.3f} ({power_low:.3f} to {power_high:.3f})"
        if power < POWER:
            effect = minimum_detectable_effect(n, 2 * ACCURACY * (1 - ACCURACY))
            line += f"; minimum detectable effect {100 * effect:.1f} points"
        print(line)
    for line in guard_lines(max(1, round(GUARD_SHARE * simulations)), random):
        print(line)
    print(f"{time.process_time() - started:.0f} CPU-seconds")
    return int(worst > MAX_FALSE_PROMOTION_RATE)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SIMULATIONS))
