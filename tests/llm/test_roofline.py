from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from resources.hardware import TIERS
from synth_assets.llm.roofline import copy_bandwidth_gb_s, count_parameters, roofline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"a": np.zeros((3, 5), np.float32), "b": np.zeros(5, np.float16)}, tmp_path / "model-1.safetensors")
    save_file({"c": np.zeros((), np.float32)}, tmp_path / "model-2.safetensors")
    return tmp_path


def test_parameters_are_counted_over_all_files(folder: Path) -> None:
    assert count_parameters(folder) == 3 * 5 + 5 + 1


def test_the_bound_is_rows_times_bandwidth_over_bytes(folder: Path) -> None:
    half, quarter = roofline(folder, TIERS["a100"], 64), roofline(folder, TIERS["t4"], 1)
    assert half.tokens_per_s == pytest.approx(64 * 1_555e9 / (21 * 2))
    assert quarter.tokens_per_s == pytest.approx(320e9 / (21 * 0.5))  # NF4
    assert half.facts()["bandwidth_kind"] == "data sheet"


def test_the_processors_bandwidth_is_measured(folder: Path) -> None:
    bound = roofline(folder, TIERS["cpu"], 64)
    assert bound.facts()["bandwidth_kind"] == "measured"
    assert 0.1 < copy_bandwidth_gb_s() < 2_000


def test_every_gpu_tier_has_a_bandwidth() -> None:
    assert all((row.bandwidth_gb_s > 0) == (row.device == "cuda") for row in TIERS.values())
