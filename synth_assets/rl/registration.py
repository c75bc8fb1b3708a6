"""Register an environment for each suite whose answers a program scores."""

import gymnasium

from synth_assets.evals.suites import SUITES

NAMESPACE, VERSION = "synth", 0
ENTRY_POINT = "synth_assets.rl.environment:SuiteEnvironment"


def environment_id(suite: str) -> str:
    """Return the id of a suite's environment, such as "synth/agent_scenarios-v0"."""
    return f"{NAMESPACE}/{suite}-v{VERSION}"


def environment_suites() -> tuple[str, ...]:
    """Return the suites that have an environment: those in which the model generates text that a program scores."""
    return tuple(name for name, suite in SUITES.items() if suite.kind == "generation")


def register_suites() -> None:
    """Register every environment with Gymnasium. Calling it again changes nothing."""
    for suite in environment_suites():
        if environment_id(suite) not in gymnasium.registry:
            gymnasium.register(environment_id(suite), entry_point=ENTRY_POINT, kwargs={"suite": suite})
