import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import dagster as dg
import pytest

from resources import hardware
from resources.deployment import CPU_TIERS
from resources.hardware import PRESETS, TIER_FIELDS, TIERS, Gpu, Hardware, detect, find_gpu
from resources.inference import Inference
from synth_assets.evals import scoring
from synth_assets.evals.suites import find_suites
from synth_assets.stages.efficiency import latencies, variants
from synth_assets.stages.evaluation import profiles
from synth_assets.stages.generation import magpie
from synth_assets.stages.preference import candidates, pairs
from synth_assets.training.specs import DpoSpec, LoraSpec, OnPolicyDpoSpec, PromptTuningSpec, RejectionSamplingSpec

DRIVERLESS = """
import sys
from resources.deployment import CPU_TIERS
from resources.hardware import Hardware
assert Hardware().name() == "cpu"
Hardware().limits()
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


@dataclass(frozen=True)
class MagpieSpec:
    """A spec of the name that tiers set, with fields of each kind."""

    samples: int = 7
    max_instruction_tokens: int = 9
    max_response_tokens: int = 9
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be above 0, not {self.samples}")


class Overrides(dg.Config):
    samples: int | None = None
    words: list[str] | None = None
    force: bool = False


def test_tiers() -> None:
    assert list(TIERS) == ["cpu", "laptop", "t4", "rtx12", "rtx24", "l4", "a100", "h100", "h200"]
    for name, row in TIERS.items():
        assert (row.device == "cpu") == (name in CPU_TIERS)
        assert row.batch_size * row.accumulation == 16
        assert row.grouping == "length" or row.attention == "flash_attention_2"
        assert row.capability >= (8, 0) or row.dtype != "bfloat16"


@pytest.mark.parametrize(
    ("card", "tier"),
    [
        (Gpu("Tesla T4", 16.1, (7, 5)), "t4"),
        (Gpu("NVIDIA GeForce RTX 3060", 12.9, (8, 6)), "rtx12"),
        (Gpu("NVIDIA GeForce RTX 4080", 17.2, (8, 9)), "rtx12"),  # bfloat16 before 4 GB more
        (Gpu("NVIDIA GeForce RTX 4090", 25.8, (8, 9)), "rtx24"),
        (Gpu("NVIDIA L4", 24.2, (8, 9)), "l4"),
        (Gpu("NVIDIA A100-SXM4-40GB", 42.9, (8, 0)), "a100"),
        (Gpu("NVIDIA A100-SXM4-80GB", 85.9, (8, 0)), "a100"),
        (Gpu("NVIDIA H100 80GB HBM3", 85.5, (9, 0)), "h100"),
        (Gpu("NVIDIA H200", 150.8, (9, 0)), "h200"),
        (Gpu("NVIDIA GeForce GTX 1080", 8.6, (6, 1)), "cpu"),
        (Gpu("Tesla V100-SXM2-32GB", 34.4, (7, 0)), "cpu"),
        (None, "cpu"),
    ],
)
def test_auto_takes_the_largest_row_that_fits(card: Gpu | None, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "find_gpu", lambda: card)
    assert detect() == tier
    assert Hardware(tier="auto").name() == tier


def fake_nvidia_smi(folder: Path, answer: str, status: int = 0) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{answer}'\nexit {status}\n")
    program.chmod(0o755)


def test_first_gpu_of_nvidia_smi_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "NVIDIA A10, 23028, 8.6\\nTesla T4, 15360, 7.5\\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = find_gpu()
    assert gpu is not None
    assert (gpu.name, gpu.capability) == ("NVIDIA A10", (8, 6))
    assert gpu.memory_gb == pytest.approx(24.15, abs=0.01)  # 23,028 x 1,048,576 bytes
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpu() is None


def test_failing_nvidia_smi_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "NVIDIA-SMI has failed", status=9)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpu() is None


def test_without_driver_torch_is_not_imported() -> None:
    subprocess.run([sys.executable, "-c", DRIVERLESS], check=True, timeout=60, env={"CUDA_VISIBLE_DEVICES": ""})


def test_an_unknown_tier_names_the_tiers() -> None:  # fault 27
    with pytest.raises(ValueError, match=r"unknown tier 'h1000'; expected auto, cpu, laptop, t4, .*, h200$"):
        Hardware(tier="h1000").limits()


def test_gpu_tier_without_gpu_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:  # fault 31
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="tier h100 needs an NVIDIA GPU") as error:
        Hardware(tier="h100").limits()
    assert "\n" not in str(error.value)
    assert "tier cpu" in str(error.value)


def test_models_come_from_override_then_preset_then_tier() -> None:
    assert Hardware(tier="h100").location("teacher") == "meta-llama/Llama-3.1-8B-Instruct"
    assert Hardware(tier="h100", preset="qwen").location("teacher") == PRESETS["qwen"]["teacher"]
    assert Hardware(tier="h100", preset="qwen", teacher="a/b@main").location("teacher") == "a/b@main"
    assert Hardware(tier="cpu", base="/models/mine").limits().base == "/models/mine"
    with pytest.raises(ValueError, match="unknown preset 'opt'; expected llama, qwen"):
        Hardware(tier="h100", preset="opt").location("base")


def test_run_config_overrides_the_tiers_settings() -> None:
    own = Hardware(tier="cpu")
    assert own.spec(MagpieSpec()).samples == TIERS["cpu"].samples
    assert own.spec(MagpieSpec()).max_response_tokens == 64
    changed = own.spec(MagpieSpec(), Overrides(samples=3, words=["a"], force=True))
    assert (changed.samples, changed.words) == (3, ("a",))
    assert Hardware(tier="h100").spec(MagpieSpec()) == MagpieSpec(samples=1_500)


def test_invalid_value_names_the_field() -> None:  # fault 27
    with pytest.raises(ValueError, match="samples must be above 0, not -1"):
        Hardware(tier="cpu").spec(MagpieSpec(), Overrides(samples=-1))


def test_override_of_an_unknown_field_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TIERS, "cpu", replace(TIERS["cpu"], overrides={"LoraSpec": {"learnig_rate": 1.0}}))
    with pytest.raises(ValueError, match="tier cpu sets learnig_rate, which LoraSpec does not have"):
        Hardware(tier="cpu").spec(LoraSpec())


def test_cpu_overrides_are_what_suits_the_embedded_models() -> None:
    own = Hardware(tier="cpu")
    assert own.spec(LoraSpec()) == LoraSpec(learning_rate=5e-3, epochs=6.0, dropout=0.0)
    assert own.spec(PromptTuningSpec()) == PromptTuningSpec(
        learning_rate=0.05, epochs=4.0, initialisation="SAMPLE_VOCAB"
    )
    assert own.spec(DpoSpec()) == DpoSpec(learning_rate=5e-4, epochs=2.0, beta=1.0, dpo_weight=0.3, sft_weight=1.0)
    assert own.spec(RejectionSamplingSpec()).learning_rate == 1e-3


def test_every_tier_names_suites_that_exist() -> None:
    assert all(find_suites(Hardware(tier=name).row().suites) for name in TIERS)


def test_every_override_names_a_spec_and_its_fields() -> None:
    specs = [LoraSpec, PromptTuningSpec, DpoSpec, RejectionSamplingSpec, magpie.MagpieSpec]
    specs += [candidates.CandidateSpec, pairs.PairSpec, scoring.EvaluationSpec, profiles.PreferenceSpec]
    specs += [variants.StudySpec, latencies.LatencySpec, candidates.OnPolicyCandidateSpec, OnPolicyDpoSpec]
    known = {spec.__name__: {field.name for field in fields(spec)} for spec in specs}
    for row in TIERS.values():
        for name, values in row.overrides.items():
            assert set(values) <= known[name]
    assert all(set(names) <= known[name] for name, names in TIER_FIELDS.items())


def test_the_same_models_in_another_quantisation() -> None:
    plain = Inference(hardware=Named(tier="cpu", base="owner/base"))
    quantised = plain.quantised("nf4")
    assert quantised.hardware.limits() == replace(plain.hardware.limits(), quantisation="nf4")
    assert quantised.engine().endswith(f"{plain.hardware.limits().dtype} nf4")
    assert plain.hardware.limits().quantisation == "none"
    assert isinstance(quantised.hardware, Named)  # what a deployment changed of the row stays


class Named(Hardware):
    """A hardware of a deployment's own."""
