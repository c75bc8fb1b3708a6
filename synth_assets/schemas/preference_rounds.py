"""Rounds of preference optimisation: whose responses are paired, which adapter goes on, and the names of the assets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PreferenceRound:
    """One round: responses, pairs of them, the policy that is trained further, its reference, the result, its control.

    All are keys of assets. The policy is an adapter; in an on-policy round it writes the candidates as well.
    """

    candidates: str
    pairs: str
    policy: str
    reference: str
    adapter: str
    control: str


def on_policy(prefix: str, policy: str) -> PreferenceRound:
    """A round on the responses of an adapter itself; its assets are named after `prefix`."""
    return PreferenceRound(
        candidates=f"{prefix}_candidates",
        pairs=f"{prefix}_pairs",
        policy=policy,
        reference=f"{prefix}_reference_logprobs",
        adapter=f"{prefix}_dpo_adapter",
        control=f"{prefix}_dpo_control_adapter",
    )


OFF_POLICY = PreferenceRound(
    candidates="response_candidates",
    pairs="preference_pairs",
    policy="lora_adapter",
    reference="reference_logprobs",
    adapter="dpo_adapter",
    control="dpo_control_adapter",
)
"""On the responses of the teacher."""

ON_POLICY = (on_policy("on_policy", policy="lora_adapter"),)
"""One after the other; a second round is another line here, with the adapter of the first as its policy."""

ROUNDS = (OFF_POLICY, *ON_POLICY)
