"""A registered adapter answers in a fresh process by the snippet of the docs, and restores without the flavour."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resources.deployment import PROJECT
from resources.inference import Hardware, Inference
from resources.served_model import flavour_of
from synth_assets.llm.protocols import Sampling
from synth_assets.registry.model_versions import restore_adapter
from synth_assets.storage.manifests import folder_hash, write_manifest
from synth_assets.training.engine import new_adapter, save_adapter
from tests.support.records import make_lora
from tests.support.tracking import tracking_of

pytestmark = pytest.mark.integration

PAGE = PROJECT / "docs" / "how-to" / "use-the-champion.md"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def inference() -> Inference:
    return Inference(hardware=Hardware(tier="cpu"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, inference: Inference) -> Path:
    """Return the folder of an untrained LoRA adapter of the embedded base model."""
    from peft import LoraConfig

    folder = tmp_path_factory.mktemp("adapter")
    base, _ = inference.load_base(inference.resolve("base"))
    save_adapter(
        new_adapter(base, LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj"]), 0), folder, "base"
    )
    write_manifest(folder, {})
    return folder


def test_a_registered_version_answers_in_a_fresh_process(tmp_path: Path, inference: Inference, adapter: Path) -> None:
    base = inference.resolve("base")
    record = make_lora(base=base.name, base_revision=base.revision, data_versions={})
    tracking = tracking_of(tmp_path)
    tracker = tracking.tracker()
    before, version = tracker.log_training(record, adapter, [], {})  # as an earlier release registered it
    flavour = flavour_of(inference, base)
    assert tracker.log_training(record, adapter, [], {}, flavour) == (before, version)
    assert tracker.log_training(record, adapter, [], {}, flavour) == (before, version)
    tracker.set_alias("champion", version, {})

    environment = {**os.environ, "SYNTH_TIER": "cpu"}
    used = subprocess.run(
        [sys.executable, "-c", snippet(tracking.uri())],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert used.returncode == 0, used.stderr
    answer = expected(inference)
    assert used.stdout.splitlines()[-1] == str([answer]), "an untrained adapter answers like the base model"

    restore_adapter(tracker, version, tmp_path / "restored")
    assert folder_hash(tmp_path / "restored") == folder_hash(adapter)


def snippet(uri: str) -> str:
    """Return the first Python snippet of the page, with the address of this home."""
    code = PAGE.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    assert QUESTION in code
    return re.sub(r'"sqlite:[^"]*"', repr(uri), code)


def expected(inference: Inference) -> str:
    generator = inference.generator(inference.resolve("base"))
    prompt = generator.encode_chat([{"role": "user", "content": QUESTION}])
    return generator.generate([prompt], [0], Sampling(0.0, 1.0, 256))[0].text
