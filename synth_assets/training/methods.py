"""The training methods, one row each.

Assets, their configs, the roster of adapters, controls, figures, checks and fingerprints derive from METHODS. To add a
method, write `training/<method>.py` with its training function, its spec in `specs.py`, its row here, and a test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.preference_rounds import OFF_POLICY, ON_POLICY, PreferenceRound
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import PAIRS, SFT_ROWS
from synth_assets.training.data import best_responses
from synth_assets.training.dpo import control_spec, train_dpo
from synth_assets.training.prompt_tuning import train_prompt
from synth_assets.training.sft import train_lora, train_on_best
from synth_assets.training.specs import (
    DpoSpec,
    LoraSpec,
    OnPolicyDpoSpec,
    OptimizationSpec,
    PromptTuningSpec,
    RejectionSamplingSpec,
)

if TYPE_CHECKING:
    import polars as pl

    from synth_assets.training.engine import LoadedBase, Trained
    from synth_assets.training.plan import TrainingPlan

REFERENCE = "reference_logprobs"
REFERENCE_VERSION = 1
"""Version of the code that computes reference log-probabilities, like `Method.version`."""
REFERENCE_CODE_VERSION = fingerprint(REFERENCE, REFERENCE_VERSION)  # Dagster's code version of the asset


def _same_rows(rows: "pl.DataFrame") -> "pl.DataFrame":
    return rows


@dataclass(frozen=True)
class Method:
    """A way to train an adapter.

    Attributes:
        key: name of the method; its asset is `<key>_adapter`, its control `<key>_control_adapter`.
        spec: class of its settings.
        train: trains an adapter from a resolved plan.
        rows: asset with the training rows: SFT_ROWS (`sft_dataset`) or PAIRS.
        description: description of the asset, one sentence.
        continues: adapter asset whose weights the training starts from; None for the base model.
        reference: asset with the reference log-probabilities of the rows; None if the loss needs none.
        control: returns the settings of the control, which trains on the same rows for as many steps without the
            method's own loss; None for no control.
        curves: kind of training curves in the figures.
        trained_rows: selects the rows of the table that training examples are made from.
        columns: columns of those rows that a curriculum can use.
        version: version of the method's code in the fingerprint of its adapters. Raise it when the code gives other
            weights for the same spec, rows, base and seed; `tests/training/test_versions.py` fails as a reminder.
    """

    key: str
    spec: type[OptimizationSpec]
    train: "Callable[[LoadedBase, TrainingPlan], Trained]"
    rows: str
    description: str
    continues: str | None = None
    reference: str | None = None
    control: Callable[[Any], OptimizationSpec] | None = None
    curves: Literal["supervised", "preference"] = "supervised"
    trained_rows: "Callable[[pl.DataFrame], pl.DataFrame]" = _same_rows
    columns: frozenset[str] = frozenset(SFT_ROWS)
    version: int = 1

    @property
    def adapter(self) -> str:
        """Return the name of the adapter's asset."""
        return f"{self.key}_adapter"

    @property
    def control_adapter(self) -> str:
        """Return the name of the control's asset; empty where the method has no control."""
        return f"{self.key}_control_adapter" if self.control else ""

    @property
    def control_description(self) -> str:
        """Return the description of the control's asset."""
        return (
            f"Control of the {display_name(self.adapter)} adapter: the same rows and steps without the method's "
            "loss. Scored, never a candidate."
        )

    @property
    def code_version(self) -> str:
        """Return Dagster's code version of the method's assets."""
        return fingerprint(self.key, self.version)

    @property
    def is_lora(self) -> bool:
        """Return whether its adapters are LoRA adapters, new or continued."""
        return self.continues is not None or issubclass(self.spec, LoraSpec)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Return the names of the method's adapters: the candidate, then its control."""
        return (self.adapter, self.control_adapter) if self.control else (self.adapter,)


def reference_description(preference_round: PreferenceRound) -> str:
    """Return the description of the reference log-probabilities of a round."""
    return (
        f"Log-probabilities of both responses of each pair under the {display_name(preference_round.policy)} "
        "adapter: the reference of every DPO training.\n\nEmpty if the training of that adapter failed."
    )


def dpo_method(preference_round: PreferenceRound, spec: type[DpoSpec], note: str = "") -> Method:
    """Return the DPO method of a preference round; `note` is appended to its description."""
    return Method(
        key=preference_round.adapter.removesuffix("_adapter"),
        spec=spec,
        train=lambda base, plan: train_dpo(base, plan.parent, (plan.rows, plan.reference), _spec(plan), plan.setup),
        rows=preference_round.pairs,
        description=f"The {display_name(preference_round.policy)} adapter, trained further to prefer the chosen "
        f"responses (direct preference optimisation).{note}",
        continues=preference_round.policy,
        reference=preference_round.reference,
        control=control_spec,
        curves="preference",
        columns=frozenset(PAIRS),
    )


def _spec(plan: "TrainingPlan") -> Any:  # noqa: ANN401 - the method's spec class
    return plan.spec


METHODS: Mapping[str, Method] = {
    method.key: method
    for method in (
        Method(
            key="prompt_tuning",
            spec=PromptTuningSpec,
            train=lambda base, plan: train_prompt(base, plan.rows, _spec(plan), plan.setup),
            rows="sft_dataset",
            description="Trained virtual tokens before the input of the frozen base model, on the same rows as LoRA.",
        ),
        Method(
            key="lora",
            spec=LoraSpec,
            train=lambda base, plan: train_lora(base, plan.rows, _spec(plan), plan.setup),
            rows="sft_dataset",
            description="Low-rank adapter of the base model, fine-tuned on the filtered instructions.",
        ),
        Method(
            key="rejection_sampling",
            spec=RejectionSamplingSpec,
            train=lambda base, plan: train_on_best(base, plan.parent, plan.rows, _spec(plan), plan.setup),
            rows=OFF_POLICY.pairs,
            description="The LoRA adapter, fine-tuned further on the best response to each instruction (rejection "
            "sampling).",
            continues="lora_adapter",
            trained_rows=best_responses,
            columns=frozenset(),
        ),
        dpo_method(OFF_POLICY, DpoSpec),
        *(
            dpo_method(round_, OnPolicyDpoSpec, " The pairs include the policy's own responses.")
            for round_ in ON_POLICY
        ),
    )
}
"""Methods from the cheapest to the most expensive, which is the display order of their adapters."""

ADAPTERS = tuple(name for method in METHODS.values() for name in method.adapters)
"""Adapter assets, all of which are evaluated together with the base model."""

CONTROLS = tuple(method.control_adapter for method in METHODS.values() if method.control)
"""Control adapters: evaluated, but never candidates."""


def method_of(spec: OptimizationSpec) -> Method:
    """Return the first method with this spec class. Raises KeyError if there is none."""
    return {method.spec: method for method in reversed(list(METHODS.values()))}[type(spec)]
