"""The implicit reward of direct preference optimisation."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def implicit_reward_margin(policy: Floats, reference: Floats, *, beta: float) -> Floats:
    """How far a DPO policy prefers each chosen response to its rejected one.

    The argument of the sigmoid in Rafailov et al. 2023 (arXiv 2305.18290), eq. 7.

    Args:
        policy: (pairs, 2) summed token log-probabilities in nats; column 0 chosen, 1 rejected.
        reference: the same, under the frozen reference model.
        beta: pull towards the reference, dimensionless, above 0.

    Returns:
        (pairs,) margins in nats, positive where the policy agrees with the label.

    Raises:
        ValueError: the shapes are not two equal (pairs, 2), or beta is not above 0.
    """
    if policy.shape != reference.shape or policy.ndim != 2 or policy.shape[1] != 2:
        raise ValueError(f"wanted two equal shapes (pairs, 2); got {policy.shape} and {reference.shape}")
    if not beta > 0:
        raise ValueError(f"beta is {beta}; it must be above 0")
    gained = policy - reference
    return beta * (gained[:, 0] - gained[:, 1])
