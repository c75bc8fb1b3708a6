"""How often promotion is wrong: simulated models of known accuracy before the policy that is in force.

    python perf/promotion.py [SIMULATIONS]

False promotions: candidate and opponent of equal true accuracy, with independent outcomes. Power: the candidate is
five points better. For each suite's number of items the two rates are printed with their Clopper-Pearson bounds, and,
where the power is below .8, the effect that the suite does see. Fails where the upper bound of a false rate is
above .06.
Models that resemble each other disagree on fewer items: both rates are then better than those printed here.
"""

import sys
import time

import numpy as np

from synth_assets.benchmarks.suites import find_suites
from synth_assets.promotion.policy import Contender, PromotionPolicy, decide
from synth_assets.records import Verdict
from synth_assets.statistics import minimum_detectable_effect, paired_test

SIMULATIONS = 2_000
ACCURACY = 0.5  # where outcomes vary most
EFFECT = 0.05
HIGHEST_FALSE_RATE = 0.06
POWER = 0.8
SUITES = ("world_instructions", "instruction_following", "knowledge", "agent_scenarios")
CANDIDATE = Contender("lora_adapter", "2", "c")
OPPONENT = Contender("base", "", "o")
CHECKED = [Verdict("sft_dataset", "d", "enough_rows", "passed")]


def promoted(first: np.ndarray, second: np.ndarray, policy: PromotionPolicy) -> bool:
    """What the policy decides on 0 and 1 for each item, (n,) of the opponent and of the candidate."""
    names = [str(number) for number in range(len(first))]
    duel = paired_test(("base", "lora_adapter"), ("s", "test", "m"), first.tolist(), second.tolist(), names)
    return decide(CANDIDATE, OPPONENT, duel, CHECKED, policy).outcome == "promoted"


def rate(n: int, effect: float, simulations: int, random: np.random.Generator) -> tuple[int, float, float]:
    """Promotions among the simulations, and the 2.5 and 97.5 % bounds of their rate (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    low_accuracy, high_accuracy = ACCURACY - effect / 2, ACCURACY + effect / 2
    policy = PromotionPolicy()
    count = 0
    for _ in range(simulations):
        first, second = (random.random(n) < accuracy for accuracy in (low_accuracy, high_accuracy))
        count += promoted(first.astype(float), second.astype(float), policy)
    low = float(beta.ppf(0.025, count, simulations - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, simulations - count)) if count < simulations else 1.0
    return count, low, high


def main(simulations: int) -> int:
    """Print a line for each suite; 1 where promotions of nothing better are too many."""
    random = np.random.default_rng(0)
    policy, started, worst = PromotionPolicy(), time.process_time(), 0.0
    print(f"{simulations} simulations each; minimum effect {policy.minimum_effect}, alpha {policy.alpha}")
    for suite in find_suites(SUITES):
        n = sum(item.split == "test" for item in suite.items())
        if n < policy.minimum_items:
            print(f"{suite.name}: {n} items, of which the policy refuses to decide (wants {policy.minimum_items})")
            continue
        false, low, high = rate(n, 0.0, simulations, random)
        found, found_low, found_high = rate(n, EFFECT, simulations, random)
        worst = max(worst, high)
        power = found / simulations
        line = f"{suite.name}: {n} items; false promotions {false / simulations:.4f} ({low:.4f} to {high:.4f})"
        line += f"; power at {100 * EFFECT:.0f} points {power:.3f} ({found_low:.3f} to {found_high:.3f})"
        if power < POWER:
            line += f"; sees {100 * minimum_detectable_effect(n, 2 * ACCURACY * (1 - ACCURACY)):.1f} points"
        print(line)
    print(f"{time.process_time() - started:.0f} CPU-seconds")
    return int(worst > HIGHEST_FALSE_RATE)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SIMULATIONS))
