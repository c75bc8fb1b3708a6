"""Default settings by model size: sampling and lengths of a teacher, learning rates and epochs of a base.

The hardware tier (resources/hardware.py) sets batch sizes and precision. Settings that depend on the model are here,
one row per size; each spec takes its values from the row of the model that it applies to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from synth_assets.llm.architecture import count_parameters, local_config_folder
from synth_assets.llm.catalog import model_at
from synth_assets.llm.model_files import EMBEDDED, PROGRAM

Role = Literal["teacher", "base", "reward"]
ROLES: tuple[Role, ...] = ("teacher", "base", "reward")

EMBEDDED_SUITES = ("world_instructions", "world_choice")
WRITTEN_SUITES = ("instruction_following", "knowledge", "refusal_balance", "agent_scenarios")
"""Suites shipped with the package; the first one selects the candidate."""
PUBLISHED_SUITES = ("mmlu", "hellaswag", "arc_easy", "arc_challenge", "truthfulqa_mc2", "gsm8k")
"""Suites read from files in SYNTH_BENCHMARKS or from the hub."""
SUITES = WRITTEN_SUITES + PUBLISHED_SUITES
"""Module names in synth_assets/evals/suites, in display order."""


class MagpieSettings(TypedDict, total=False):
    """Fields of MagpieSpec that depend on the teacher."""

    temperature: float
    response_temperature: float
    top_p: float
    max_instruction_tokens: int
    max_response_tokens: int


class CandidateSettings(TypedDict, total=False):
    """Fields of CandidateSpec and OnPolicyCandidateSpec that depend on the model that generates the responses."""

    temperatures: tuple[float, ...]
    top_p: float
    max_response_tokens: int


class PairSettings(TypedDict, total=False):
    """Fields of PairSpec that depend on the reward model, which defines the unit of the margin."""

    margin: float
    max_pairs: int
    strategy: Literal["best_worst", "all"]


class PreferenceSettings(TypedDict, total=False):
    """Fields of PreferenceSpec that depend on the reward model."""

    items: int
    tie: float


class EvaluationSettings(TypedDict, total=False):
    """Fields of EvaluationSpec that depend on the base model."""

    max_tokens: int


class StudySettings(TypedDict, total=False):
    """Fields of StudySpec that depend on the base model."""

    train_rows: int
    epochs: float
    items: int


class LatencySettings(TypedDict, total=False):
    """Fields of LatencySpec that depend on the base model."""

    prompts: int
    max_tokens: int


class OptimizationSettings(TypedDict, total=False):
    """Fields of every training spec that depend on the base model."""

    learning_rate: float
    epochs: float


class LoraSettings(OptimizationSettings, total=False):
    """Fields of LoraSpec and RewardSpec that depend on the base model."""

    dropout: float


class PromptTuningSettings(OptimizationSettings, total=False):
    """Fields of PromptTuningSpec that depend on the base model."""

    initialisation: Literal["SAMPLE_VOCAB", "RANDOM"]


class DpoSettings(OptimizationSettings, total=False):
    """Fields of DpoSpec and OnPolicyDpoSpec that depend on the base model."""

    beta: float
    dpo_weight: float
    sft_weight: float


class TeacherSettings(TypedDict, total=False):
    """Specs that depend on the teacher."""

    MagpieSpec: MagpieSettings
    CandidateSpec: CandidateSettings


class BaseSettings(TypedDict, total=False):
    """Specs that depend on the base model."""

    OnPolicyCandidateSpec: CandidateSettings
    EvaluationSpec: EvaluationSettings
    StudySpec: StudySettings
    LatencySpec: LatencySettings
    LoraSpec: LoraSettings
    PromptTuningSpec: PromptTuningSettings
    DpoSpec: DpoSettings
    OnPolicyDpoSpec: DpoSettings
    RejectionSamplingSpec: OptimizationSettings
    RewardSpec: LoraSettings


class RewardSettings(TypedDict, total=False):
    """Specs that depend on the reward model."""

    PairSpec: PairSettings
    PreferenceSpec: PreferenceSettings


@dataclass(frozen=True)
class ModelSize:
    """A row of SIZES. Fields that it omits keep the defaults of their spec.

    Attributes:
        below: upper bound on the parameter count, exclusive.
        teacher: settings for a teacher of this size.
        base: settings for a base model of this size.
        reward: settings for a reward model of this size.
        suites: evaluation suites for a base model of this size; the first one selects the candidate.
        measured: source of the values; empty if they are the specs' defaults.
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
        below=0,  # selected by location only: the settings are specific to the shipped models
        teacher={
            "MagpieSpec": {"max_instruction_tokens": 64, "max_response_tokens": 64},
            "CandidateSpec": {"max_response_tokens": 64},
        },
        base={
            "OnPolicyCandidateSpec": {"max_response_tokens": 64},
            "EvaluationSpec": {"max_tokens": 64},
            # without dropout a LoRA step takes 0.72 of the CPU time; validation accuracy (strict) 0.668 against 0.672
            "LoraSpec": {"learning_rate": 5e-3, "epochs": 6.0, "dropout": 0.0},
            "StudySpec": {"train_rows": 1_024, "epochs": 3.0, "items": 320},  # 40 s of one core per variant
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
            "RewardSpec": {"learning_rate": 2e-3, "epochs": 4.0, "dropout": 0.0},
        },
        reward={
            "PairSpec": {"margin": 1.0, "max_pairs": 1_300, "strategy": "best_worst"},
            "PreferenceSpec": {"items": 0},  # the embedded world has an exact verifier, unlike its reward model
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
            "LoraSpec": {"learning_rate": 5e-4, "epochs": 3.0},
            "PromptTuningSpec": {"learning_rate": 1e-2, "epochs": 2.0},
            "DpoSpec": {"learning_rate": 1e-4},
            "OnPolicyDpoSpec": {"learning_rate": 1e-4},
            "RejectionSamplingSpec": {"learning_rate": 2e-4},
            "RewardSpec": {"learning_rate": 3e-4},
        },
        measured="lengths: answers of SmolLM2-135M; rates of training were not compared with others",
    ),
    "1-4B": ModelSize(below=5.5e9),
    "7-14B": ModelSize(below=float("inf")),
}
"""Model sizes, smallest first. Models between two ranges take the nearer row: "1-4B" covers 0.5 to 5.5e9 parameters."""

REFERENCE_SIZE: Mapping[Role, str] = {"teacher": "7-14B", "base": "1-4B", "reward": "below 500M"}
"""Size assumed for each role if a model's size cannot be determined locally."""


@dataclass(frozen=True)
class SizeOfModel:
    """Size class of a model and its source.

    Attributes:
        name: key of SIZES.
        parameters: parameter count; None if unknown or not needed.
        source: where the size comes from.
    """

    name: str
    parameters: int | None
    source: Literal["shipped model", "catalog", "weights", "config", "unknown"]

    @property
    def row(self) -> ModelSize:
        """Return the row of SIZES."""
        return SIZES[self.name]

    def text(self) -> str:
        """Format the size, such as "below 500M (1.35e8 parameters, from its weights)"."""
        if self.source == "shipped model":
            return self.name
        if self.parameters is None:
            return f"{self.name} (assumed: size unknown until the model is downloaded)"
        origin = "from the catalog" if self.source == "catalog" else f"from its {self.source}"
        return f"{self.name} ({self.parameters:.3g} parameters, {origin})"


def size_of(location: str, role: Role) -> SizeOfModel:
    """Return the size class of the model at a location.

    Shipped models are "embedded". The parameter count of other models comes from the catalog, from the safetensors
    headers, or from config.json. Nothing is downloaded.
    """
    if location.startswith(EMBEDDED):
        return SizeOfModel(EMBEDDED_SIZE, None, "shipped model")
    if location.startswith(PROGRAM):
        return SizeOfModel(PROGRAM_SIZE, None, "shipped model")
    if row := model_at(location):
        return SizeOfModel(size_class(row.parameters), row.parameters, "catalog")
    folder = local_config_folder(location)
    counted = count_parameters(folder) if folder else None
    if counted is None:
        return SizeOfModel(REFERENCE_SIZE[role], None, "unknown")
    return SizeOfModel(size_class(counted.count), counted.count, counted.source)


def size_class(parameters: int) -> str:
    """Return the key of SIZES for a parameter count."""
    return next(name for name, row in SIZES.items() if parameters < row.below)


def settings_for(kind: str, locations: Mapping[Role, str]) -> dict[str, Any]:
    """Return the settings of a spec for the size of the model it depends on.

    Args:
        kind: class name of the spec.
        locations: location of the model in each role.

    Returns:
        Field -> value; empty for a spec that depends on no model.
    """
    for role in ROLES:
        if any(kind in getattr(row, role) for row in SIZES.values()):
            return dict(getattr(size_of(locations[role], role).row, role).get(kind, {}))
    return {}


def role_of_spec(kind: str) -> Role | None:
    """Return the role of the model that a spec depends on, or None."""
    return next((role for role in ROLES if any(kind in getattr(row, role) for row in SIZES.values())), None)
