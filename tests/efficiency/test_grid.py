import re

import pytest

from synth_assets.stages.efficiency.config import CELLS
from synth_assets.stages.efficiency.grid import (
    DEFAULT_VARIANTS,
    MODULES,
    REFERENCE,
    SEEDS,
    VARIANTS,
    cell_of,
    full_grid,
    sweeps,
    wanted_variants,
)
from synth_assets.training.specs import LoraSpec


def test_two_names_of_one_configuration_are_one_cell() -> None:
    assert cell_of(8, "attention+mlp", "none") == cell_of(8, "all", "none") == REFERENCE
    assert cell_of(8, "qkv", "none") != cell_of(8, "qkvo", "none")
    targets = [(cell.rank, frozenset(cell.targets), cell.quantisation) for cell in full_grid()]
    assert len(set(targets)) == len(targets)


def test_sweeps_change_one_factor_of_the_reference() -> None:
    cells = sweeps()
    # 5 ranks, 5 different sets of modules, 3 quantisations; the reference is in each
    assert len(cells) == 5 + 5 + 3 - 2
    assert cells[0] == REFERENCE
    for cell in cells[1:]:
        assert sum(getattr(cell, f) != getattr(REFERENCE, f) for f in ("rank", "modules", "quantisation")) == 1


def test_the_full_grid_is_the_product() -> None:
    assert len(full_grid()) == 5 * 5 * 3  # six names of modules, two of them the same
    assert set(sweeps()) < set(full_grid())


def test_the_reference_is_that_of_the_spec() -> None:
    spec = LoraSpec()
    assert (spec.rank, spec.alpha, set(spec.target_modules)) == (8, 2 * 8, set(MODULES["all"]))
    assert (REFERENCE.rank, set(REFERENCE.targets)) == (spec.rank, set(spec.target_modules))


def test_partitions_are_readable_and_the_default_ones_come_first() -> None:
    keys = CELLS.get_partition_keys()
    assert tuple(keys[: len(DEFAULT_VARIANTS)]) == DEFAULT_VARIANTS
    assert len(DEFAULT_VARIANTS) == 11 * 3
    assert len(keys) == len(set(keys)) == 75 * len(SEEDS)
    assert all(re.fullmatch(r"r\d+-[a-z]+-(none|int8|nf4)-s\d+", key) for key in keys)
    assert "r16-all-none-s42" in DEFAULT_VARIANTS
    assert VARIANTS["r8-qkvo-none-s43"] == (cell_of(8, "qkvo", "none"), 43)


def test_partitions_of_a_study() -> None:
    assert wanted_variants() == DEFAULT_VARIANTS
    assert wanted_variants(seeds=1, ranks=[4, 64]) == ("r4-all-none-s42", "r64-all-none-s42")
    assert len(wanted_variants(full=True, seeds=2)) == 150
    assert {name.rpartition("-s")[0] for name in wanted_variants()[:11]} == {cell.name for cell in sweeps()}


@pytest.mark.parametrize(
    ("wrong", "names"), [({"seeds": 0}, "got 0"), ({"seeds": 6}, "got 6"), ({"ranks": [5]}, "rank 5")]
)
def test_unknown_ranks_and_seeds_are_an_error(wrong: dict[str, object], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        wanted_variants(**wrong)  # pyright: ignore[reportArgumentType]
