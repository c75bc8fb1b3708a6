"""`synth models`: list the models of the catalog and whether they fit into the memory of the tier."""

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
HEADER = ("name", "role", "parameters", "size", "context", "licence", "generate", "train", "status")


def models_text(hardware: Hardware) -> str:
    """Return a table of the models with their memory on this tier, followed by notes."""
    tier = hardware.row()
    rows = [_cells(name, row, tier) for name, row in MODELS.items()]
    widths = [max(len(row[column]) for row in (HEADER, *rows)) for column in range(len(HEADER))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (HEADER, *rows)
    ]
    notes = [f"  {name}: {'; '.join(note)}" for name, row in MODELS.items() if (note := _notes(row))]
    sizes = [f"{role} {hardware.location(role)}: {hardware.size(role).text()}" for role in ROLES]
    return "\n".join([_heading(hardware.name(), tier), *sizes, "", *table, "", "notes", *notes, "", USAGE])


USAGE = (
    "Select a model with SYNTH_TEACHER=NAME or SYNTH_BASE=NAME. NAME can also be a hub repository, or a folder\n"
    "with model.safetensors (or its index), config.json and a tokenizer, of an architecture that the installed\n"
    "Transformers supports. The size of a model selects its learning rates, lengths and sampling settings."
)


def chosen_text(hardware: Hardware) -> str:
    """Describe the teacher and the base of this deployment: licence, status, and memory on this tier."""
    tier, parts = hardware.row(), []
    for role in ROLES:
        row = model_at(hardware.location(role))
        if row is None:
            parts += _described(hardware, role, tier)
            continue
        estimate = memory_estimate(row, tier, LoraSpec().rank)
        size = estimate.generate if role == "teacher" else estimate.train
        fit = "fits" if fits(size, memory_gb(tier)) else "does NOT fit"
        memory = f"about {size / 1e9:.0f} GB (derived) {fit} in {memory_gb(tier):.0f}"
        details = [f"licence {row.licence}", row.tested or "untested", memory, *_notes(row)]
        parts.append(f"{role} {row.repository}: {', '.join(details)}")
    return "; ".join(parts) or "the teacher and the base are not in the catalog (`synth models`)"


def _described(hardware: Hardware, role: Literal["teacher", "base"], tier: Tier) -> list[str]:
    """Describe the memory of a model outside the catalog, from its files; empty for the embedded models."""
    location = hardware.location(role)
    row = None if location.startswith(EMBEDDED) else model_from_folder(location, role)
    if row is None:
        return []
    estimate = memory_estimate(row, tier, LoraSpec().rank)
    size = estimate.generate if role == "teacher" else estimate.train
    fit = "fits" if fits(size, memory_gb(tier)) else "does NOT fit"
    memory = f"about {size / 1e9:.1f} GB (derived) {fit} in {memory_gb(tier):.0f}"
    return [f"{role} {location}: {memory}, LoRA on {', '.join(row.targets)}"]


def memory_gb(tier: Tier) -> float:
    """Return the memory of the tier's device in units of 1e9 bytes; the memory of the machine on the CPU."""
    return tier.memory_gb or psutil.virtual_memory().total / 1e9


def _heading(name: str, tier: Tier) -> str:
    quantised = "" if tier.quantisation == "none" else f", {tier.quantisation}"
    return (
        f"tier {name}: {memory_gb(tier):.0f} GB, {tier.dtype}{quantised}\n"
        f"generate: GB for the weights and the KV cache of {ROWS_AT_ONCE[tier.engine]} texts\n"
        f"train: GB for LoRA on all modules with {tier.batch_size} rows per forward pass\n"
        f"Texts and rows have {TRAINED_TOKENS:,} tokens. Derived from published shapes, not measured. A star marks "
        "more than nine tenths of the memory."
    )


def _cells(name: str, row: Model, tier: Tier) -> tuple[str, ...]:
    estimate = memory_estimate(row, tier, LoraSpec().rank)
    sizes = [
        f"{size / 1e9:.1f}{'' if fits(size, memory_gb(tier)) else ' *'}" for size in (estimate.generate, estimate.train)
    ]
    return (
        name,
        ", ".join(row.roles),
        f"{row.parameters / 1e9:.2f}e9",
        size_class(row.parameters),
        f"{row.context_tokens:,}",
        row.licence + (" (gated)" if row.gate else ""),
        *sizes,
        row.tested or "untested",
    )


def _notes(row: Model) -> list[str]:
    gate = [f"requires {row.gate} on the hub"] if row.gate else []
    return gate + ([row.caveat] if row.caveat else [])
