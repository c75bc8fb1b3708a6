"""The hardware tiers, one row each, and the resource that picks one."""

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
import psutil

from synth_assets.llm.architecture import described_folder, linear_modules
from synth_assets.llm.catalog import MODELS, SEPARATE, model_at
from synth_assets.llm.model_files import EMBEDDED
from synth_assets.llm.size_settings import ROLES, Role, SizeOfModel, settings_for, size_of
from synth_assets.llm.topics import SMALL_MODEL_TOPICS
from synth_assets.schemas.tier import Tier

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")
GPU_POOL = "gpu"
"""The Dagster pool of the steps that run a model; `Tier.model_steps` is its size."""

DEBERTA = "OpenAssistant/reward-model-deberta-v3-large-v2"
LLAMA = {
    "teacher": MODELS["llama-3.1-8b-instruct"].repository,
    "base": MODELS["llama-3.2-3b"].repository,
    "reward": DEBERTA,
}
PRESETS: Mapping[str, Mapping[str, str]] = {
    "llama": LLAMA,  # gated: accept Meta's licence on the hub first
    "qwen": {  # ungated, Apache 2.0
        "teacher": MODELS["qwen2.5-7b-instruct"].repository,
        "base": MODELS["qwen2.5-1.5b"].repository,
        "reward": DEBERTA,
    },
}
"""Sets of models that can replace a tier's own, by name."""

AMPERE = Tier(  # what the cards from 2020 on have in common; a row says what it does not
    teacher=LLAMA["teacher"],
    base=LLAMA["base"],
    reward=LLAMA["reward"],
    device="cuda",
    memory_gb=24,
    dtype="bfloat16",
    quantisation="none",
    attention="flash_attention_2",
    engine="vllm",
    batch_size=4,
    accumulation=4,  # 16 rows a step on every tier
    samples=1_500,
    min_rows=50,
    usd_per_hour=0.5,
    bandwidth_gb_s=936,
    capability=(8, 0),
    grouping="packing",
)

HOPPER = replace(AMPERE, batch_size=16, accumulation=1, capability=(9, 0))

# usd_per_hour: on-demand list prices of 2025 for one card, rounded, taxes and storage not included. t4 and l4 are AWS
# g4dn.xlarge and g6.xlarge, the others marketplace offers (RunPod, Lambda). They tell 0.5 from 5; put in what you pay.
# bandwidth_gb_s: NVIDIA's data sheets of T4, RTX 3060 12 GB, RTX 3090, L4, A100 40 GB, H100 SXM and H200.
LAPTOP = Tier(  # a real language model of 135M parameters on 2 cores, within an hour
    device="cpu",
    memory_gb=0,
    dtype="float32",
    quantisation="none",
    attention="sdpa",
    engine="transformers",
    teacher=MODELS["smollm2"].repository,
    base=MODELS["smollm2"].repository,
    reward="program:constraints",
    batch_size=2,  # a token of a forward pass that trains LoRA on all modules holds 4 MB: pairs stay below 8 GB
    accumulation=8,
    samples=384,  # 6 whole blocks
    min_rows=50,
    usd_per_hour=0.0,
    suites=("instruction_following",),
    overrides={
        "MagpieSpec": {
            "max_instruction_tokens": 96,
            "temperature": 0.8,
            "topics": SMALL_MODEL_TOPICS,
            "constrained_share": 0.5,
        },
        "CandidateSpec": {"instructions": 96, "max_response_tokens": 160},
        "OnPolicyCandidateSpec": {"instructions": 96, "max_response_tokens": 160, "temperatures": (1.0, 1.0)},
        "EvaluationSpec": {"max_tokens": 64, "validation_items": 60, "test_items": 300},
    },
)

TIERS: dict[str, Tier] = {
    "cpu": Tier(
        device="cpu",
        memory_gb=0,
        dtype="float32",
        quantisation="none",
        attention="sdpa",
        engine="transformers",
        teacher="embedded:teacher",
        base="embedded:base",
        reward="embedded:reward",
        batch_size=16,
        accumulation=1,
        samples=1_536,  # 24 whole blocks
        min_rows=50,
        usd_per_hour=0.0,
        model_steps=2,
        tested="demo on 2 x86-64 cores, 2026-11-20, docs/tested.md",
    ),
    "laptop": LAPTOP,
    "t4": replace(  # Turing: neither bfloat16 nor FlashAttention 2
        AMPERE,
        memory_gb=16,
        dtype="float16",
        quantisation="nf4",
        attention="sdpa",
        engine="transformers",
        batch_size=2,
        accumulation=8,
        usd_per_hour=0.53,
        bandwidth_gb_s=320,
        capability=(7, 5),
        grouping="length",
    ),
    "rtx12": replace(
        AMPERE,
        memory_gb=12,
        quantisation="nf4",
        engine="transformers",
        batch_size=2,
        accumulation=8,
        usd_per_hour=0.1,
        bandwidth_gb_s=360,
    ),
    "rtx24": AMPERE,
    "l4": replace(AMPERE, usd_per_hour=0.8, bandwidth_gb_s=300, capability=(8, 9)),
    "a100": replace(AMPERE, memory_gb=40, batch_size=8, accumulation=2, usd_per_hour=1.3, bandwidth_gb_s=1_555),
    "h100": replace(HOPPER, memory_gb=80, usd_per_hour=3.0, bandwidth_gb_s=3_350),
    "h200": replace(HOPPER, memory_gb=141, usd_per_hour=4.0, bandwidth_gb_s=4_800),
}
"""The rows; an empty `tested` says that nobody ran it."""

MODEL_VARIABLES = {"preset": "SYNTH_PRESET", "teacher": "SYNTH_TEACHER", "base": "SYNTH_BASE", "reward": "SYNTH_REWARD"}
"""Fields of Hardware -> the environment variables that a deployment sets them by."""

TIER_FIELDS = {"MagpieSpec": ("samples",)}  # fields of specs that every tier's row sets


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: its name, memory in units of 1e9 bytes as in TIERS, and compute capability."""

    name: str
    memory_gb: float
    capability: tuple[int, int]


class Hardware(dg.ConfigurableResource):
    """The tier this deployment runs on; `auto` looks at the machine. Pass dg.EnvVar only where it is set.

    `preset` replaces the tier's models by a set of PRESETS; `teacher`, `base` and `reward` replace one each, by a name
    of MODELS (synth_assets/llm/catalog.py), a hub repository (`owner/name`, or `owner/name@revision`) or a folder.
    `quantisation` is another than the row's.
    """

    tier: str = "auto"
    preset: str = ""
    teacher: str = ""
    base: str = ""
    reward: str = ""
    quantisation: str = ""

    def name(self) -> str:
        """The tier's name, or ValueError naming the tiers there are."""
        if self.tier == "auto":
            return detect()
        if self.tier not in TIERS:
            raise ValueError(f"no tier {self.tier!r}; there are auto, {', '.join(TIERS)}")
        return self.tier

    def row(self) -> Tier:
        """The tier's row with the models of this deployment; ValueError where there is no such tier or preset."""
        row = TIERS[self.name()]
        own: dict[str, Any] = {**self.locations()}
        suites = row.suites or self.size("base").row.suites
        row = replace(row, **own, suites=suites, quantisation=self.quantisation or row.quantisation)
        if row.device == "cpu" and not all(own[role].startswith(EMBEDDED) for role in ("teacher", "base")):
            return replace(row, model_steps=1, threads=cores())
        return row

    def limits(self) -> Tier:
        """The row, on a machine that can have it.

        Raises:
            ValueError: no such tier or preset, or the tier needs a GPU and this machine has none; names the remedy.
        """
        row = self.row()
        if row.device == "cuda" and find_gpu() is None:
            raise ValueError(
                f"tier {self.name()} needs an NVIDIA GPU and none is visible: choose the tier cpu, "
                "or see that nvidia-smi lists the card and CUDA_VISIBLE_DEVICES does not hide it"
            )
        return row

    def location(self, role: Role) -> str:
        """Where the model of a role comes from: a hub repository, a folder, or `embedded:<role>`."""
        if self.preset and self.preset not in PRESETS:
            raise ValueError(f"no preset {self.preset!r}; there are {', '.join(PRESETS)}")
        own = {"teacher": self.teacher, "base": self.base, "reward": self.reward}[role]
        if own in MODELS and role not in MODELS[own].roles:
            fitting = ", ".join(name for name, model in MODELS.items() if role in model.roles)
            raise ValueError(
                f"{own} cannot be the {role} model; of the models known by name these can: {fitting or 'none'}"
            )
        if own in MODELS:
            return MODELS[own].repository
        return own or PRESETS.get(self.preset, {}).get(role, "") or getattr(TIERS[self.name()], role)

    def locations(self) -> dict[Role, str]:
        """Return where the model of each role comes from."""
        return {role: self.location(role) for role in ROLES}

    def size(self, role: Role) -> SizeOfModel:
        """Return the size class of a role's model, whose row in llm/size_settings.py has its settings."""
        return size_of(self.location(role), role)

    def spec(self, default: S, config: dg.Config | None = None) -> S:
        """Return `default` with what suits the model that it concerns, then the tier, then the run's config.

        The size of the model sets rates, epochs, lengths and sampling; the tier how much is computed; a field of the
        config that is None sets nothing.

        Raises:
            ValueError: a value the spec refuses, naming the field; a tier's override of a field that the spec lacks.
        """
        kind = type(default).__name__
        known = {field.name for field in fields(default)}
        row = self.row()
        suited = {field: getattr(row, field) for field in TIER_FIELDS.get(kind, ())}
        suited |= {**settings_for(kind, self.locations()), **_suiting_the_base(default, row.base)}
        suited |= row.overrides.get(kind, {})
        if unknown := sorted(suited.keys() - known):
            raise ValueError(f"tier {self.name()} sets {', '.join(unknown)}, which {kind} does not have")
        asked = {name: value for name, value in (config or {}) if name in known and value is not None}
        return replace(default, **{name: _like(getattr(default, name), v) for name, v in (suited | asked).items()})


def deployed(tier: str) -> Hardware:
    """A tier with the models that this deployment's environment variables name."""
    return Hardware(tier=tier, **{f: os.environ[name] for f, name in MODEL_VARIABLES.items() if os.environ.get(name)})


def detect() -> str:
    """The largest tier that this machine's first GPU fits by memory and capability; `cpu` where there is none.

    A card that a tier is named after takes that tier; a card with bfloat16 takes no tier without.
    """
    gpu = find_gpu()
    if gpu is None:
        return "cpu"
    words = gpu.name.lower().replace("-", " ").split()
    fitting = [
        (name in words, row.dtype == "bfloat16", row.memory_gb, name)
        for name, row in TIERS.items()
        if row.device == "cuda" and row.memory_gb <= gpu.memory_gb and row.capability <= gpu.capability
    ]
    return max(fitting, key=lambda fit: fit[:3])[3] if fitting else "cpu"


def cores() -> int:
    """How many physical cores this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or 1))


def find_gpu() -> Gpu | None:
    """The first visible NVIDIA GPU; torch is not imported unless a driver is there that nvidia-smi cannot ask."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    if program := shutil.which("nvidia-smi"):
        return _ask(program)
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(0)
    return Gpu(card.name, card.total_memory / 1e9, (card.major, card.minor))


@functools.lru_cache(maxsize=4)
def _ask(nvidia_smi: str) -> Gpu | None:
    query = [nvidia_smi, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    lines = answer.stdout.strip().splitlines()
    if answer.returncode or not lines:
        return None
    name, mebibytes, capability = (part.strip() for part in lines[0].rsplit(",", 2))
    major, _, minor = capability.partition(".")
    return Gpu(name, int(mebibytes) * 2**20 / 1e9, (int(major), int(minor)))


def _suiting_the_base(default: object, base: str) -> dict[str, Any]:
    """The target modules of the base's architecture, for a spec that names those of most models and no others."""
    if getattr(default, "target_modules", ()) != SEPARATE or base.startswith(EMBEDDED):
        return {}
    if model := model_at(base):
        return {"target_modules": model.targets}
    folder = described_folder(base)
    modules = linear_modules(folder) if folder else ()
    return {"target_modules": modules} if modules else {}


def _like(default: object, value: object) -> object:
    """Lists of a config as the tuples of a spec."""
    return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
