"""Table of hardware tiers, and the resource that selects one."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
import psutil

from synth_assets.llm.architecture import linear_modules, local_config_folder
from synth_assets.llm.catalog import MODELS, SEPARATE, model_at
from synth_assets.llm.model_files import EMBEDDED
from synth_assets.llm.size_settings import ROLES, Role, SizeOfModel, settings_for, size_of
from synth_assets.llm.topics import SMALL_MODEL_TOPICS
from synth_assets.schemas.tier import CPU_FLOAT32, Tier

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")
GPU_POOL = "gpu"
"""Dagster pool of the steps that run a model; `Tier.model_steps` is its size."""

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
"""Sets of models that replace those of a tier, by name."""

AMPERE = Tier(  # defaults of cards from 2020 on
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
    accumulation=4,  # 16 rows per step on every tier
    samples=1_500,
    min_rows=50,
    usd_per_hour=0.5,
    bandwidth_gb_s=936,
    capability=(8, 0),
    grouping="packing",
)

HOPPER = replace(AMPERE, batch_size=16, accumulation=1, capability=(9, 0))

# usd_per_hour: on-demand list prices of 2025 for one card, rounded, taxes and storage not included. t4 and l4 are AWS
# g4dn.xlarge and g6.xlarge, the others marketplace offers (RunPod, Lambda). Rough values; set your own price.
# bandwidth_gb_s: NVIDIA's data sheets of T4, RTX 3060 12 GB, RTX 3090, L4, A100 40 GB, H100 SXM and H200.
LAPTOP = replace(  # a real language model of 135M parameters on 2 cores
    CPU_FLOAT32,
    teacher=MODELS["smollm2"].repository,
    base=MODELS["smollm2"].repository,
    reward="program:constraints",
    batch_size=2,  # a token of a forward pass that trains LoRA on all modules holds 4 MB: pairs stay below 8 GB
    accumulation=8,
    samples=448,  # 7 whole blocks
    min_rows=50,
    suites=("instruction_following", "knowledge"),
    tested="make demo-llm on 2 x86-64 hardware threads, 2026-11-28, docs/experiments/2026-11-smollm2.md",
    overrides={
        "MagpieSpec": {
            "max_instruction_tokens": 96,
            "temperature": 0.8,
            "topics": SMALL_MODEL_TOPICS,
            "constrained_share": 0.6,
            "max_response_tokens": 192,
            "response_attempts": 3,
        },
        "CandidateSpec": {"instructions": 192, "max_response_tokens": 160, "top_p": 0.95},
        "OnPolicyCandidateSpec": {"instructions": 128, "max_response_tokens": 160, "temperatures": (1.0, 1.0)},
        "RejectionSamplingSpec": {"epochs": 3.0},
        "EvaluationSpec": {"max_tokens": 96, "validation_items": 60, "test_items": 300},
    },
)

TIERS: dict[str, Tier] = {
    "cpu": replace(
        CPU_FLOAT32,
        teacher="embedded:teacher",
        base="embedded:base",
        reward="embedded:reward",
        batch_size=16,
        samples=1_536,  # 24 whole blocks
        min_rows=50,
        model_steps=2,
        tested="demo on 2 x86-64 cores, 2026-11-20, docs/results.md",
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
"""Rows by tier name; an empty `tested` means untested."""

MODEL_VARIABLES = {"preset": "SYNTH_PRESET", "teacher": "SYNTH_TEACHER", "base": "SYNTH_BASE", "reward": "SYNTH_REWARD"}
"""Field of Hardware -> environment variable that sets it."""

TIER_FIELDS = {"MagpieSpec": ("samples",)}  # spec -> fields set by every tier's row


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: name, memory in 1e9 bytes as in TIERS, and compute capability."""

    name: str
    memory_gb: float
    capability: tuple[int, int]


class Hardware(dg.ConfigurableResource):
    """Select the hardware tier; `auto` detects it. Pass dg.EnvVar only if the variable is set.

    `preset` replaces the tier's models by a set of PRESETS. `teacher`, `base` and `reward` replace one model each: a
    name in MODELS (synth_assets/llm/catalog.py), a hub repository (`owner/name` or `owner/name@revision`) or a folder.
    `quantisation` replaces the tier's.
    """

    tier: str = "auto"
    preset: str = ""
    teacher: str = ""
    base: str = ""
    reward: str = ""
    quantisation: str = ""

    def name(self) -> str:
        """Return the tier's name. Raise ValueError for an unknown tier."""
        if self.tier == "auto":
            return detect()
        if self.tier not in TIERS:
            raise ValueError(f"unknown tier {self.tier!r}; expected auto, {', '.join(TIERS)}")
        return self.tier

    def row(self) -> Tier:
        """Return the tier's row with the models of this deployment. Raise ValueError for an unknown tier or preset."""
        row = TIERS[self.name()]
        models: dict[str, Any] = {**self.locations()}
        suites = row.suites or self.size("base").row.suites
        row = replace(row, **models, suites=suites, quantisation=self.quantisation or row.quantisation)
        if row.device == "cpu" and not all(models[role].startswith(EMBEDDED) for role in ("teacher", "base")):
            return replace(
                row, model_steps=1, threads=torch_threads(), dtype="bfloat16" if cpu_has_bfloat16() else row.dtype
            )
        return row

    def limits(self) -> Tier:
        """Return the row after checking that this machine can run it.

        Raises:
            ValueError: unknown tier or preset, or the tier needs a GPU and none is visible; names the remedy.
        """
        row = self.row()
        if row.device == "cuda" and find_gpu() is None:
            raise ValueError(
                f"tier {self.name()} needs an NVIDIA GPU and none is visible: choose the tier cpu, "
                "or check that nvidia-smi lists the card and CUDA_VISIBLE_DEVICES does not hide it"
            )
        return row

    def location(self, role: Role) -> str:
        """Return the location of a role's model: a hub repository, a folder, or `embedded:<role>`."""
        if self.preset and self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; expected {', '.join(PRESETS)}")
        choice = {"teacher": self.teacher, "base": self.base, "reward": self.reward}[role]
        if choice in MODELS and role not in MODELS[choice].roles:
            fitting = ", ".join(name for name, model in MODELS.items() if role in model.roles)
            raise ValueError(f"{choice} cannot be the {role} model; the named models that can: {fitting or 'none'}")
        if choice in MODELS:
            return MODELS[choice].repository
        return choice or PRESETS.get(self.preset, {}).get(role, "") or getattr(TIERS[self.name()], role)

    def locations(self) -> dict[Role, str]:
        """Return the location of each role's model."""
        return {role: self.location(role) for role in ROLES}

    def size(self, role: Role) -> SizeOfModel:
        """Return the size class of a role's model; its settings are in llm/size_settings.py."""
        return size_of(self.location(role), role)

    def spec(self, default: S, config: dg.Config | None = None) -> S:
        """Return `default` updated by the settings of the model, then of the tier, then of the run's config.

        The size of the model sets rates, epochs, lengths and sampling; the tier sets the amount of work. Config fields
        that are None are ignored.

        Raises:
            ValueError: an invalid value, naming the field; or a tier's override of a field that the spec lacks.
        """
        kind = type(default).__name__
        field_names = {field.name for field in fields(default)}
        row = self.row()
        settings = {field: getattr(row, field) for field in TIER_FIELDS.get(kind, ())}
        settings |= {**settings_for(kind, self.locations()), **_target_modules(default, row.base)}
        settings |= row.overrides.get(kind, {})
        if unknown := sorted(settings.keys() - field_names):
            raise ValueError(f"tier {self.name()} sets {', '.join(unknown)}, which {kind} does not have")
        overrides = {name: value for name, value in (config or {}) if name in field_names and value is not None}
        return replace(
            default, **{name: _like(getattr(default, name), v) for name, v in (settings | overrides).items()}
        )


def deployed(tier: str) -> Hardware:
    """Return a tier with the models set by this deployment's environment variables."""
    return Hardware(tier=tier, **{f: os.environ[name] for f, name in MODEL_VARIABLES.items() if os.environ.get(name)})


def detect() -> str:
    """Return the largest tier that this machine's first GPU fits by memory and capability; `cpu` without a GPU.

    A tier named after the card is preferred; a card with bfloat16 never gets a tier without.
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


def torch_threads() -> int:
    """Return the number of torch threads for a real model: the physical cores, or both hardware threads of one core.

    On one core, a forward and backward pass of SmolLM2-135M with two threads takes half the time of one thread.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, max(2, psutil.cpu_count(logical=False) or 1)))


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware; without it bfloat16 is slower than float32.

    Reads the flags of Linux' /proc/cpuinfo. perf/generation.py compares the precisions.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return False
    return any(re.search(rf"\b{flag}\b", flags) for flag in ("avx512_bf16", "amx_bf16"))


def find_gpu() -> Gpu | None:
    """Return the first visible NVIDIA GPU; import torch only if a driver is present and nvidia-smi is not."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    if program := shutil.which("nvidia-smi"):
        return _query_gpu(program)
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(0)
    return Gpu(card.name, card.total_memory / 1e9, (card.major, card.minor))


@functools.lru_cache(maxsize=4)
def _query_gpu(nvidia_smi: str) -> Gpu | None:
    query = [nvidia_smi, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    lines = answer.stdout.strip().splitlines()
    if answer.returncode or not lines:
        return None
    name, mebibytes, capability = (part.strip() for part in lines[0].rsplit(",", 2))
    major, _, minor = capability.partition(".")
    return Gpu(name, int(mebibytes) * 2**20 / 1e9, (int(major), int(minor)))


def _target_modules(default: object, base: str) -> dict[str, Any]:
    """Return the target modules of the base's architecture for a spec with the default ones."""
    if getattr(default, "target_modules", ()) != SEPARATE or base.startswith(EMBEDDED):
        return {}
    if model := model_at(base):
        return {"target_modules": model.targets}
    folder = local_config_folder(base)
    modules = linear_modules(folder) if folder else ()
    return {"target_modules": modules} if modules else {}


def _like(default: object, value: object) -> object:
    """Convert lists of a config to tuples of a spec."""
    return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
