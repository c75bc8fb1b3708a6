"""Settings that belong to a model's size: sampling and lengths of a teacher, rates and epochs of a base.

The hardware tier decides how much is computed at once (resources/hardware.py); what a model can learn and write depends
on the model. Each size has one row here, and each spec takes its values from the row of the model that it concerns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from synth_assets.llm.architecture import described_folder, parameters_of
from synth_assets.llm.catalog import model_at
from synth_assets.llm.model_files import EMBEDDED, PROGRAM

Role = Literal["teacher", "base", "reward"]
ROLES: tuple[Role, ...] = ("teacher", "base", "reward")

EMBEDDED_SUITES = ("world_instructions", "world_choice")
WRITTEN_SUITES = ("instruction_following", "knowledge", "refusal_balance", "agent_scenarios")
"""Shipped with the package; the first chooses the candidate."""
PUBLISHED_SUITES = ("mmlu", "hellaswag", "arc_easy", "arc_challenge", "truthfulqa_mc2", "gsm8k")
"""From files in SYNTH_BENCHMARKS, or from the hub."""
SUITES = WRITTEN_SUITES + PUBLISHED_SUITES
"""Names of synth_assets/benchmarks/suites, in the order they are shown."""


class MagpieSettings(TypedDict, total=False):
    """Fields of MagpieSpec that follow from the teacher."""

    temperature: float
    response_temperature: float
    top_p: float
    max_instruction_tokens: int
    max_response_tokens: int


class CandidateSettings(TypedDict, total=False):
    """Fields of CandidateSpec and OnPolicyCandidateSpec that follow from the model that answers."""

    temperatures: tuple[float, ...]
    top_p: float
    max_response_tokens: int


class PairSettings(TypedDict, total=False):
    """Fields of PairSpec that follow from the reward model, in whose unit the margin is."""

    margin: float
    max_pairs: int
    strategy: Literal["best_worst", "all"]


class PreferenceSettings(TypedDict, total=False):
    """Fields of PreferenceSpec that follow from the reward model."""

    items: int
    tie: float


class EvaluationSettings(TypedDict, total=False):
    """Fields of EvaluationSpec that follow from the base."""

    max_tokens: int


class StudySettings(TypedDict, total=False):
    """Fields of StudySpec that follow from the base."""

    train_rows: int
    epochs: float
    items: int


class LatencySettings(TypedDict, total=False):
    """Fields of LatencySpec that follow from the base."""

    prompts: int
    max_tokens: int


class OptimizationSettings(TypedDict, total=False):
    """Fields of every training spec that follow from the base."""

    learning_rate: float
    epochs: float


class LoraSettings(OptimizationSettings, total=False):
    """Those of LoraSpec."""

    dropout: float


class PromptTuningSettings(OptimizationSettings, total=False):
    """Those of PromptTuningSpec."""

    initialisation: Literal["SAMPLE_VOCAB", "RANDOM"]


class DpoSettings(OptimizationSettings, total=False):
    """Those of DpoSpec and OnPolicyDpoSpec."""

    beta: float
    dpo_weight: float
    sft_weight: float


class TeacherSettings(TypedDict, total=False):
    """Specs of what the teacher generates."""

    MagpieSpec: MagpieSettings
    CandidateSpec: CandidateSettings


class BaseSettings(TypedDict, total=False):
    """Specs of what is trained on the base, and of what it and its adapters generate."""

    OnPolicyCandidateSpec: CandidateSettings
    EvaluationSpec: EvaluationSettings
    StudySpec: StudySettings
    LatencySpec: LatencySettings
    LoraSpec: LoraSettings
    PromptTuningSpec: PromptTuningSettings
    DpoSpec: DpoSettings
    OnPolicyDpoSpec: DpoSettings
    RejectionSamplingSpec: OptimizationSettings


class RewardSettings(TypedDict, total=False):
    """Specs of what the reward model judges."""

    PairSpec: PairSettings
    PreferenceSpec: PreferenceSettings


@dataclass(frozen=True)
class ModelSize:
    """A row of SIZES; a field that it leaves out keeps the default of its spec.

    Attributes:
        below: parameters that a model of this size stays below.
        teacher: settings where the teacher has this size.
        base: settings where the base has it.
        reward: settings where the reward model has it.
        suites: what a base of this size is evaluated on; the first suite chooses the candidate.
        measured: where the values come from; empty where they are the reference values of the specs.
    """

    below: float
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    base: BaseSettings = field(default_factory=BaseSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    suites: tuple[str, ...] = SUITES
    measured: str = ""


EMBEDDED_SIZE, PROGRAM_SIZE = "embedded", "program"
SIZES: Mapping[str, ModelSize] = {
    EMBEDDED_SIZE: ModelSize(
        below=0,  # by location alone: another model of a million parameters has another vocabulary and world
        teacher={
            "MagpieSpec": {"max_instruction_tokens": 64, "max_response_tokens": 64},
            "CandidateSpec": {"max_response_tokens": 64},
        },
        base={
            "OnPolicyCandidateSpec": {"max_response_tokens": 64},
            "EvaluationSpec": {"max_tokens": 64},
            # without dropout a LoRA step takes .72 of the CPU time: strict .668 on the validation items, .672 with it
            "LoraSpec": {"learning_rate": 5e-3, "epochs": 6.0, "dropout": 0.0},
            "StudySpec": {"train_rows": 1_024, "epochs": 3.0, "items": 320},  # a variant in 40 s of one core
            "LatencySpec": {"prompts": 60, "max_tokens": 64},
            "PromptTuningSpec": {"learning_rate": 0.05, "epochs": 4.0, "initialisation": "SAMPLE_VOCAB"},
            "DpoSpec": {"learning_rate": 5e-4, "epochs": 2.0, "beta": 1.0, "dpo_weight": 0.3, "sft_weight": 1.0},
            "OnPolicyDpoSpec": {
                "learning_rate": 5e-4,
                "epochs": 2.0,
                "beta": 1.0,
                "dpo_weight": 1.0,
                "sft_weight": 0.3,
            },
            "RejectionSamplingSpec": {"learning_rate": 1e-3},
        },
        reward={
            "PairSpec": {"margin": 1.0, "max_pairs": 1_300, "strategy": "best_worst"},
            "PreferenceSpec": {"items": 0},  # the mini world's verifier is exact, its reward model is not
        },
        suites=EMBEDDED_SUITES,
        measured="validation items of the embedded world; larger models diverge at these rates",
    ),
    PROGRAM_SIZE: ModelSize(
        below=0,  # by location alone: a program has no parameters
        reward={
            "PairSpec": {"margin": 0.4, "max_pairs": 72, "strategy": "all"},
            "PreferenceSpec": {"items": 0},  # it reads constraints of training prompts, which test items do not have
        },
        measured="margin: one of two constraints, less what content words can weigh",
    ),
    "below 500M": ModelSize(
        below=0.5e9,
        teacher={
            "MagpieSpec": {
                "temperature": 1.0,
                "top_p": 0.95,
                "max_instruction_tokens": 160,
                "max_response_tokens": 256,
            },
            "CandidateSpec": {"top_p": 0.95, "max_response_tokens": 256},
        },
        base={
            "OnPolicyCandidateSpec": {"top_p": 0.95, "max_response_tokens": 256},
            "EvaluationSpec": {"max_tokens": 256},
            "LoraSpec": {"learning_rate": 5e-4, "epochs": 2.0},
            "PromptTuningSpec": {"learning_rate": 1e-2, "epochs": 2.0},
            "DpoSpec": {"learning_rate": 1e-4},
            "OnPolicyDpoSpec": {"learning_rate": 1e-4},
            "RejectionSamplingSpec": {"learning_rate": 2e-4},
        },
        measured="lengths: answers of SmolLM2-135M; rates of training were not compared with others",
    ),
    "1-4B": ModelSize(below=5.5e9),
    "7-14B": ModelSize(below=float("inf")),
}
"""The sizes, smallest first. A model between two ranges takes the nearer row: 0.5 to 5.5e9 parameters are "1-4B"."""

REFERENCE_SIZE: Mapping[Role, str] = {"teacher": "7-14B", "base": "1-4B", "reward": "below 500M"}
"""The size of the reference model of a role: taken where nothing on this machine tells a model's size."""


@dataclass(frozen=True)
class SizeOfModel:
    """The size class of a model and how it was found.

    Attributes:
        name: key of SIZES.
        parameters: as counted; None where unknown or not needed.
        source: what told the size.
    """

    name: str
    parameters: int | None
    source: Literal["shipped model", "catalog", "weights", "config", "unknown"]

    @property
    def row(self) -> ModelSize:
        """The row of SIZES."""
        return SIZES[self.name]

    def text(self) -> str:
        """Such as "below 500M (1.35e8 parameters, from its weights)"."""
        if self.source == "shipped model":
            return self.name
        if self.parameters is None:
            return f"{self.name} (assumed: size unknown until the model is fetched)"
        origin = "from the catalog" if self.source == "catalog" else f"from its {self.source}"
        return f"{self.name} ({self.parameters:.3g} parameters, {origin})"


def size_of(location: str, role: Role) -> SizeOfModel:
    """Return the size class of the model at a location.

    A shipped model is "embedded". Others are counted: by the catalog, by the headers of their safetensors, or by the
    shapes that their config.json gives. Nothing is downloaded.
    """
    if location.startswith(EMBEDDED):
        return SizeOfModel(EMBEDDED_SIZE, None, "shipped model")
    if location.startswith(PROGRAM):
        return SizeOfModel(PROGRAM_SIZE, None, "shipped model")
    if known := model_at(location):
        return SizeOfModel(class_of(known.parameters), known.parameters, "catalog")
    folder = described_folder(location)
    counted = parameters_of(folder) if folder else None
    if counted is None:
        return SizeOfModel(REFERENCE_SIZE[role], None, "unknown")
    return SizeOfModel(class_of(counted.count), counted.count, counted.source)


def class_of(parameters: int) -> str:
    """Return the key of SIZES for a number of parameters."""
    return next(name for name, row in SIZES.items() if parameters < row.below)


def settings_for(kind: str, locations: Mapping[Role, str]) -> dict[str, Any]:
    """Return the fields that the size of the concerned model sets of a spec.

    Args:
        kind: the spec's class name.
        locations: where each role's model is.

    Returns:
        Field to value; empty for a spec that concerns no model.
    """
    for role in ROLES:
        if any(kind in getattr(row, role) for row in SIZES.values()):
            return dict(getattr(size_of(locations[role], role).row, role).get(kind, {}))
    return {}


def concerned_role(kind: str) -> Role | None:
    """Return the role of the model that a spec concerns; None for a spec that concerns none."""
    return next((role for role in ROLES if any(kind in getattr(row, role) for row in SIZES.values())), None)
