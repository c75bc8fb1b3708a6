"""`synth models`: the models that are known by a short name, and whether they fit the tier."""

from typing import Literal

import psutil

from resources.hardware import Hardware
from synth_assets.llm.architecture import model_from_folder
from synth_assets.llm.catalog import MODELS, ROWS_AT_ONCE, TRAINED_TOKENS, Model, fits, memory_estimate, model_at
from synth_assets.llm.model_files import EMBEDDED
from synth_assets.llm.size_settings import size_class
from synth_assets.schemas.tier import Tier
from synth_assets.training.specs import LoraSpec

ROLES: tuple[Literal["teacher", "base"], ...] = ("teacher", "base")
HEAD = ("name", "as", "parameters", "size", "context", "licence", "write", "train", "run by us")


def models_text(hardware: Hardware) -> str:
    """A line for each model, then what the hub or its precision asks for; memory against that of the tier."""
    tier = hardware.row()
    rows = [_cells(name, row, tier) for name, row in MODELS.items()]
    widths = [max(len(row[place]) for row in (HEAD, *rows)) for place in range(len(HEAD))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (HEAD, *rows)
    ]
    notes = [f"  {name}: {'; '.join(note)}" for name, row in MODELS.items() if (note := _notes(row))]
    sizes = [f"{role} {hardware.location(role)}: {hardware.size(role).text()}" for role in ROLES]
    return "\n".join([_heading(hardware.name(), tier), *sizes, "", *table, "", "notes", *notes, "", USE])


USE = (
    "SYNTH_TEACHER=NAME and SYNTH_BASE=NAME choose one; a base brings the modules that LoRA adapts.\n"
    "So do any other hub repository and any folder with model.safetensors (or its index), config.json and a\n"
    "tokenizer, of an architecture that the installed Transformers has. Sizes choose rates, lengths and sampling."
)


def chosen_text(hardware: Hardware) -> str:
    """What is known of the teacher and the base that this deployment names."""
    tier, told = hardware.row(), []
    for role in ROLES:
        row = model_at(hardware.location(role))
        if row is None:
            told += _described(hardware, role, tier)
            continue
        needed = memory_estimate(row, tier, LoraSpec().rank)
        size = needed.generate if role == "teacher" else needed.train
        fit = "fit" if fits(size, memory_gb(tier)) else "do NOT fit"
        memory = f"about {size / 1e9:.0f} GB (derived) {fit} in {memory_gb(tier):.0f}"
        known = [f"licence {row.licence}", row.tested or "never run by us", memory, *_notes(row)]
        told.append(f"{role} {row.repository}: {', '.join(known)}")
    return "; ".join(told) or "neither teacher nor base is one that `synth models` lists"


def _described(hardware: Hardware, role: Literal["teacher", "base"], tier: Tier) -> list[str]:
    """What the files of a model that is not listed say of the memory that it needs; nothing for shipped ones."""
    location = hardware.location(role)
    row = None if location.startswith(EMBEDDED) else model_from_folder(location, role)
    if row is None:
        return []
    needed = memory_estimate(row, tier, LoraSpec().rank)
    size = needed.generate if role == "teacher" else needed.train
    fit = "fit" if fits(size, memory_gb(tier)) else "do NOT fit"
    memory = f"about {size / 1e9:.1f} GB (derived) {fit} in {memory_gb(tier):.0f}"
    return [f"{role} {location}: {memory}, LoRA on {', '.join(row.targets)}"]


def memory_gb(tier: Tier) -> float:
    """Of the tier's device in units of 1e9 bytes; on the cpu the machine's."""
    return tier.memory_gb or psutil.virtual_memory().total / 1e9


def _heading(name: str, tier: Tier) -> str:
    quantised = "" if tier.quantisation == "none" else f", {tier.quantisation}"
    return (
        f"tier {name}: {memory_gb(tier):.0f} GB, {tier.dtype}{quantised}\n"
        f"write: GB for weights, and keys and values of texts at once: {ROWS_AT_ONCE[tier.engine]}\n"
        f"train: GB for LoRA on all modules, rows in a forward pass: {tier.batch_size}\n"
        f"Each has {TRAINED_TOKENS:,} tokens. Derived from published shapes, not measured. A star: above nine tenths "
        "of the memory."
    )


def _cells(name: str, row: Model, tier: Tier) -> tuple[str, ...]:
    needed = memory_estimate(row, tier, LoraSpec().rank)
    sizes = [
        f"{size / 1e9:.1f}{'' if fits(size, memory_gb(tier)) else ' *'}" for size in (needed.generate, needed.train)
    ]
    return (
        name,
        ", ".join(row.roles),
        f"{row.parameters / 1e9:.2f}e9",
        size_class(row.parameters),
        f"{row.context_tokens:,}",
        row.licence + (" (gated)" if row.gate else ""),
        *sizes,
        row.tested or "never",
    )


def _notes(row: Model) -> list[str]:
    gate = [f"the hub wants {row.gate}"] if row.gate else []
    return gate + ([row.caveat] if row.caveat else [])
