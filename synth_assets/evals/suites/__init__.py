"""Registry of benchmark suites, one module each."""

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
    """Return the suites with these names, in order. Raise ValueError for an unknown name."""
    suites = []
    for name in names:
        if name not in SUITES:
            raise ValueError(f"unknown suite {name!r}; expected one of {', '.join(SUITES)}")
        suites.append(SUITES[name])
    return suites
