import shutil
from pathlib import Path

import dagster as dg
import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.embedded import model_path
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.models.assets import base_model, reward_model, teacher_model

ASSETS = [teacher_model, base_model, reward_model]


def materialise(asset: dg.AssetsDefinition, hardware: Hardware) -> dg.ExecuteInProcessResult:
    return dg.materialize([asset], resources={"inference": Inference(hardware=hardware)}, raise_on_error=False)


def test_a_model_s_data_version_is_its_revision(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_path("base"), tmp_path / "mine"))
    versions = set()
    for temperature in (0.5, 0.6):
        (folder / "generation_config.json").write_text(f'{{"temperature": {temperature}}}')
        result = materialise(base_model, Hardware(tier="cpu", base=str(folder)))
        record = result.output_for_node("base_model")
        assert isinstance(record, ModelRecord)
        assert (record.role, record.location) == ("base", str(folder))
        event = result.asset_materializations_for_node("base_model")[0]
        assert event.tags is not None
        assert event.tags["dagster/data_version"] == record.revision
        assert event.metadata["family"].value == "llama"
        versions.add(record.revision)
    assert len(versions) == 2


def test_a_missing_model_fails_with_the_remedy() -> None:
    result = materialise(teacher_model, Hardware(tier="cpu", teacher="/no/such/folder"))
    assert not result.success
    error = result.failure_data_for_node("teacher_model")
    assert error is not None
    assert "must be a local folder, a hub repository" in str(error.error)


def test_the_tier_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_TIER", "cpu")
    record = materialise(base_model, Hardware(tier=dg.EnvVar("SYNTH_TIER"))).output_for_node("base_model")
    assert record.location == "embedded:base"


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.key.to_user_string())
def test_each_is_described_owned_and_grouped(asset: dg.AssetsDefinition) -> None:
    spec = next(iter(asset.specs))
    assert spec.group_name == "models"
    assert spec.description
    assert spec.owners
    assert spec.kinds == {"huggingface"}


def test_a_program_may_be_the_reward_and_nothing_else() -> None:
    record = Inference(hardware=Hardware(tier="cpu", reward="program:constraints")).resolve("reward")
    assert (record.location, record.family) == ("program:constraints", "program")
    result = materialise(base_model, Hardware(tier="cpu", base="program:constraints"))
    error = result.failure_data_for_node("base_model")
    assert error is not None
    assert "program:constraints is a reward and cannot be the base model: name a model" in str(error.error)
