"""The embedded models, loaded once."""

import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from resources.transformers_engine import TransformersGenerator
from synth_assets.records import ModelRecord


@pytest.fixture(scope="session")
def inference() -> Inference:
    return Inference(hardware=Hardware(tier="cpu"))


@pytest.fixture(scope="session")
def teacher(inference: Inference) -> ModelRecord:
    return inference.resolve("teacher")


@pytest.fixture(scope="session")
def generator(inference: Inference, teacher: ModelRecord) -> TransformersGenerator:
    generator = inference.load_generator(teacher)
    assert isinstance(generator, TransformersGenerator)
    return generator
