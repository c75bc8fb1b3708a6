"""The benchmarks there are: one file each, listed here."""

from collections.abc import Iterable, Mapping

from synth_assets.evals.suite import Suite
from synth_assets.evals.suites import (
    agent_scenarios,
    arc_challenge,
    arc_easy,
    domain,
    gsm8k,
    hellaswag,
    ifeval,
    instruction_following,
    knowledge,
    mmlu,
    refusal_balance,
    truthfulqa_mc2,
    world_choice,
    world_instructions,
)

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        world_instructions.SUITE,
        world_choice.SUITE,
        instruction_following.SUITE,
        knowledge.SUITE,
        refusal_balance.SUITE,
        agent_scenarios.SUITE,
        domain.SUITE,
        mmlu.SUITE,
        hellaswag.SUITE,
        arc_easy.SUITE,
        arc_challenge.SUITE,
        truthfulqa_mc2.SUITE,
        gsm8k.SUITE,
        ifeval.SUITE,
    )
}


def find_suites(names: Iterable[str]) -> list[Suite]:
    """The suites of these names, in their order; ValueError names one that does not exist."""
    found = []
    for name in names:
        if name not in SUITES:
            raise ValueError(f"no suite {name!r}; there are {', '.join(SUITES)}")
        found.append(SUITES[name])
    return found
