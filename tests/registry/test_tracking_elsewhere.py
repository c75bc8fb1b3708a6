"""A registered adapter serves where nothing of this project is: by alias, from MLflow alone."""

from pathlib import Path

import pytest

from synth_assets.embedded import model_path
from synth_assets.registry.mlflow_tracker import MODEL
from tests.support.records import make_lora
from tests.support.tracking import tracking_of


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.is_gradient_checkpointing:FutureWarning")
def test_the_champion_loads_by_its_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = str(model_path("base"))
    torch.manual_seed(0)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    tracking = tracking_of(tmp_path / "home")
    tracker = tracking.tracker()
    _, version = tracker.log_training(make_lora(), tmp_path / "adapter", [], {})
    tracker.set_alias("champion", version, {})

    mlflow.set_tracking_uri(tracking.uri())
    monkeypatch.chdir(tmp_path)
    folder = mlflow.artifacts.download_artifacts(f"models:/{MODEL}@champion", dst_path=str(tmp_path / "elsewhere"))
    assert sorted(p.suffix for p in Path(folder).iterdir() if p.is_file()) == [".json", ".md", ".safetensors"]
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    ids = torch.arange(1, 9).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, adapted.eval()(ids).logits)
