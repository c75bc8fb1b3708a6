"""Grid of LoRA variants of the efficiency study. To add a variant, add a value here.

Different names of one configuration are one cell. In Llama-like models attention and MLP are all linear layers of a
block, so that "attention+mlp" and "all" are the same cell; both exclude the output head, as in QLoRA (Dettmers et al.
2023, arXiv 2305.14314) and PEFT's "all-linear".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from synth_assets.llm.catalog import ATTENTION, MLP

RANKS = (4, 8, 16, 32, 64)
MODULES: Mapping[str, tuple[str, ...]] = {
    "qv": ("q_proj", "v_proj"),
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "qkvo": ATTENTION,
    "mlp": MLP,
    "attention+mlp": ATTENTION + MLP,
    "all": ATTENTION + MLP,
}
QUANTISATIONS = ("none", "int8", "nf4")
SEEDS = (42, 43, 44, 45, 46)
DEFAULT_SEEDS = 3  # number of SEEDS in a study by default
ALPHA_PER_RANK = 2  # a constant scale alpha / rank, so that one learning rate suits all ranks

CELL_NAMES: Mapping[frozenset[str], str] = {frozenset(targets): name for name, targets in MODULES.items()}
"""Layers -> their name in cells; the last of several names for the same layers."""


@dataclass(frozen=True)
class Cell:
    """One configuration; its trainings differ only in the seed."""

    rank: int
    modules: str  # a key of MODULES
    quantisation: str

    @property
    def name(self) -> str:
        """Name of the cell, such as "r16-qkvo-none"."""
        return f"r{self.rank}-{self.modules}-{self.quantisation}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Adapted layers."""
        return MODULES[self.modules]

    def variant(self, seed: int) -> str:
        """Return the partition of one training, such as "r16-qkvo-none-s42"."""
        return f"{self.name}-s{seed}"


def cell_of(rank: int, modules: str, quantisation: str) -> Cell:
    """Return the cell of a configuration, with the canonical name of its modules."""
    return Cell(rank, CELL_NAMES[frozenset(MODULES[modules])], quantisation)


REFERENCE = cell_of(8, "all", "none")
"""Center of the one-factor sweeps: the defaults of LoraSpec."""


def sweeps(reference: Cell = REFERENCE) -> tuple[Cell, ...]:
    """Return the reference and the cells that differ from it in one factor."""
    cells = [
        *(cell_of(rank, reference.modules, reference.quantisation) for rank in RANKS),
        *(cell_of(reference.rank, modules, reference.quantisation) for modules in MODULES),
        *(cell_of(reference.rank, reference.modules, quantisation) for quantisation in QUANTISATIONS),
    ]
    return tuple(dict.fromkeys([reference, *cells]))


def full_grid() -> tuple[Cell, ...]:
    """Return every combination once."""
    return tuple(dict.fromkeys(cell_of(*factors) for factors in product(RANKS, MODULES, QUANTISATIONS)))


def variants(cells: Iterable[Cell], seeds: Iterable[int]) -> dict[str, tuple[Cell, int]]:
    """Return cell and seed by partition, ordered by seed, so that an unfinished study covers all cells early."""
    cells = tuple(cells)
    return {cell.variant(seed): (cell, seed) for seed in seeds for cell in cells}


DEFAULT_VARIANTS = tuple(variants(sweeps(), SEEDS[:DEFAULT_SEEDS]))
VARIANTS: Mapping[str, tuple[Cell, int]] = variants(sweeps(), SEEDS) | variants(full_grid(), SEEDS)
"""Every partition of `lora_variant`, those of DEFAULT_VARIANTS first."""


def wanted_variants(*, full: bool = False, seeds: int = DEFAULT_SEEDS, ranks: Iterable[int] = ()) -> tuple[str, ...]:
    """Return the partitions of a study.

    Args:
        full: all combinations instead of sweeps around the reference.
        seeds: number of seeds.
        ranks: only cells of these ranks; empty: all ranks.

    Raises:
        ValueError: unknown rank, or too many seeds.
    """
    ranks = tuple(ranks)
    if not 1 <= seeds <= len(SEEDS):
        raise ValueError(f"seeds must be in [1, {len(SEEDS)}], got {seeds}; add seeds in efficiency/grid.py")
    if unknown := sorted(set(ranks) - set(RANKS)):
        raise ValueError(f"no cell has rank {unknown[0]}; there are {', '.join(map(str, RANKS))} (efficiency/grid.py)")
    cells = [cell for cell in (full_grid() if full else sweeps()) if not ranks or cell.rank in ranks]
    return tuple(variants(cells, SEEDS[:seeds]))
