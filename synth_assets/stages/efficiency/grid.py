"""The LoRA variants that the efficiency study compares: a new one is a value here.

Two ways to write one configuration are one cell. On models of Llama's kind attention and MLP are all linear layers of a
block, so "attention+mlp" and "all" are; the output head is in neither, as in QLoRA (Dettmers et al. 2023,
arXiv 2305.14314) and PEFT's "all-linear".
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
DEFAULT_SEEDS = 3  # how many of SEEDS a study takes unless it is told
ALPHA_PER_RANK = 2  # keeps the scale alpha / rank the same, so that one learning rate suits all ranks alike

CELL_NAMES: Mapping[frozenset[str], str] = {frozenset(targets): name for name, targets in MODULES.items()}
"""The layers to what they are called in cells: of names for the same layers the last."""


@dataclass(frozen=True)
class Cell:
    """One configuration; its trainings differ by seed."""

    rank: int
    modules: str  # a key of MODULES
    quantisation: str

    @property
    def name(self) -> str:
        """Such as "r16-qkvo-none"."""
        return f"r{self.rank}-{self.modules}-{self.quantisation}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The layers that are adapted."""
        return MODULES[self.modules]

    def variant(self, seed: int) -> str:
        """The partition of one training, such as "r16-qkvo-none-s42"."""
        return f"{self.name}-s{seed}"


def cell_of(rank: int, modules: str, quantisation: str) -> Cell:
    """The cell of a configuration, whatever its modules are called."""
    return Cell(rank, CELL_NAMES[frozenset(MODULES[modules])], quantisation)


REFERENCE = cell_of(8, "all", "none")
"""What one-factor sweeps vary: the reference values of LoraSpec."""


def sweeps(reference: Cell = REFERENCE) -> tuple[Cell, ...]:
    """The reference and the cells that differ from it in one factor."""
    found = [
        *(cell_of(rank, reference.modules, reference.quantisation) for rank in RANKS),
        *(cell_of(reference.rank, modules, reference.quantisation) for modules in MODULES),
        *(cell_of(reference.rank, reference.modules, quantisation) for quantisation in QUANTISATIONS),
    ]
    return tuple(dict.fromkeys([reference, *found]))


def full_grid() -> tuple[Cell, ...]:
    """Every combination, once."""
    return tuple(dict.fromkeys(cell_of(*factors) for factors in product(RANKS, MODULES, QUANTISATIONS)))


def variants(cells: Iterable[Cell], seeds: Iterable[int]) -> dict[str, tuple[Cell, int]]:
    """Partition to cell and seed; all cells of one seed before the next, so that an unfinished study is whole early."""
    cells = tuple(cells)
    return {cell.variant(seed): (cell, seed) for seed in seeds for cell in cells}


DEFAULT_VARIANTS = tuple(variants(sweeps(), SEEDS[:DEFAULT_SEEDS]))
VARIANTS: Mapping[str, tuple[Cell, int]] = variants(sweeps(), SEEDS) | variants(full_grid(), SEEDS)
"""Every partition of `lora_variant`; those of DEFAULT_VARIANTS come first."""


def wanted_variants(*, full: bool = False, seeds: int = DEFAULT_SEEDS, ranks: Iterable[int] = ()) -> tuple[str, ...]:
    """The partitions of a study.

    Args:
        full: all combinations instead of sweeps around the reference.
        seeds: how many seeds.
        ranks: only cells of these; empty: of all.

    Raises:
        ValueError: there is no such rank, or not as many seeds.
    """
    ranks = tuple(ranks)
    if not 1 <= seeds <= len(SEEDS):
        raise ValueError(f"a study has 1 to {len(SEEDS)} seeds, not {seeds}; more are values in efficiency/grid.py")
    if unknown := sorted(set(ranks) - set(RANKS)):
        raise ValueError(f"no cell has rank {unknown[0]}; there are {', '.join(map(str, RANKS))} (efficiency/grid.py)")
    chosen = [cell for cell in (full_grid() if full else sweeps()) if not ranks or cell.rank in ranks]
    return tuple(variants(chosen, SEEDS[:seeds]))
