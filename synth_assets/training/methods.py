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
"""Stands for the code that computes reference log-probabilities, like `Method.version`."""
REFERENCE_CODE_VERSION = fingerprint(REFERENCE, REFERENCE_VERSION)  # as Dagster keeps it


def _same_rows(rows: "pl.DataFrame") -> "pl.DataFrame":
    return rows


@dataclass(frozen=True)
class Method:
    """A way to train an adapter.

    Attributes:
        key: the asset is `<key>_adapter`, its control `<key>_control_adapter`.
        spec: class of its settings.
        train: trains one adapter by a resolved plan.
        rows: asset with the rows: SFT_ROWS (`sft_dataset`) or PAIRS.
        description: of the asset, a sentence.
        continues: adapter asset whose weights the training starts from; None: the base model.
        reference: asset with the reference log-probabilities of the rows; None where the loss needs none.
        control: returns the settings of the control, which trains on the same rows for as many steps without the
            method's own loss; None: no control.
        curves: the measures that figures of a training show.
        trained_rows: returns the rows of a table that training examples are made from.
        columns: of those rows, for a curriculum.
        version: stands for the method's code in the fingerprint of its adapters. Raise it when the code gives other
            weights for the same spec, rows, base and seed; `tests/training/test_versions.py` reminds of it.
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
    def code_version(self) -> str:
        """Return the version of the method's code as Dagster keeps it for an asset."""
        return fingerprint(self.key, self.version)

    @property
    def is_lora(self) -> bool:
        """Return whether its adapters are low-rank matrices: new ones, or those of the adapter that is continued."""
        return self.continues is not None or issubclass(self.spec, LoraSpec)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Return the names of the method's adapters: the candidate, then its control."""
        return (self.adapter, self.control_adapter) if self.control else (self.adapter,)


def dpo_method(preference_round: PreferenceRound, spec: type[DpoSpec], own: str = "") -> Method:
    """Return the DPO method of a preference round; `own` is added to its description."""
    return Method(
        key=preference_round.adapter.removesuffix("_adapter"),
        spec=spec,
        train=lambda base, plan: train_dpo(base, plan.parent, (plan.rows, plan.reference), _spec(plan), plan.setup),
        rows=preference_round.pairs,
        description=f"The {display_name(preference_round.policy)} adapter, trained further to prefer the chosen "
        f"responses (direct preference optimisation).{own}",
        continues=preference_round.policy,
        reference=preference_round.reference,
        control=control_spec,
        curves="preference",
        columns=frozenset(PAIRS),
    )


def _spec(plan: "TrainingPlan") -> Any:  # noqa: ANN401 - of the method's class
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
        *(dpo_method(each, OnPolicyDpoSpec, " The policy's own responses are among the pairs.") for each in ON_POLICY),
    )
}
"""From the cheapest to the most expensive; tables and figures show adapters in this order."""

ADAPTERS = tuple(name for method in METHODS.values() for name in method.adapters)
"""The assets that are evaluated beside the base model."""

CONTROLS = tuple(method.control_adapter for method in METHODS.values() if method.control)
"""Adapters that are scored and never candidates."""


def method_of(spec: OptimizationSpec) -> Method:
    """Return the first method with settings of this class; KeyError names the class where there is none."""
    return {method.spec: method for method in reversed(list(METHODS.values()))}[type(spec)]
