from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.stages.generation.magpie import generate
from synth_assets.stages.generation.spec import MagpieSpec
from tests.support.fakes import silent

SPEC = MagpieSpec(samples=100, max_instruction_tokens=48, max_response_tokens=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def inference() -> Inference:
    return Inference(hardware=Hardware(tier="cpu"))


def make(inference: Inference, folder: Path) -> pl.DataFrame:
    teacher = inference.resolve("teacher")
    return generate(inference.generator(teacher), SPEC, "first", teacher.family, folder, silent).rows.collect()


def test_the_shipped_teacher_invents_many_different_tasks(inference: Inference, folder: Path) -> None:
    rows = make(inference, folder)
    assert rows["instruction"].n_unique() >= 80
    assert (rows["instruction_finish_reason"] == "stop").sum() >= 95
    assert rows.filter(pl.col("response") != "").height >= 95


def test_a_shard_made_again_is_the_same_bytes(inference: Inference, folder: Path) -> None:
    before = make(inference, folder)
    shard = sorted(folder.glob("*.parquet"))[0]
    data = shard.read_bytes()
    shard.unlink()
    assert_frame_equal(make(inference, folder), before)
    assert shard.read_bytes() == data
