"""Architectures unlike Llama as a base: trained, saved, loaded, generated with and scored, on tiny random models."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from checks.adapters import count_problem, module_problem, read_weights
from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.evals import lm_eval_harness
from synth_assets.evals.suite import Item
from synth_assets.evals.suites import SUITES
from synth_assets.llm.catalog import SEPARATE
from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.loading import load_tokenizer
from synth_assets.llm.protocols import Sampling
from synth_assets.llm.roofline import count_parameters
from synth_assets.schemas.tables import TURN
from synth_assets.training.engine import TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import LoraSpec
from tests.support.fakes import silent

pytestmark = pytest.mark.integration

TARGETS: Mapping[str, Sequence[str]] = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gemma2": SEPARATE,
    "gemma3_text": SEPARATE,
    "llama": SEPARATE,
    "mistral": SEPARATE,
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "qwen2": SEPARATE,
    "qwen3": SEPARATE,
}
ONE_STEP = {"rank": 2, "alpha": 4, "epochs": 1.0, "batch_size": 32, "accumulation": 1, "warmup_ratio": 0.0}
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=6)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(8)],
            "history": [[] for _ in range(8)],
            "instruction": [f"What is {i} plus 1?" + " Please." * (i % 3) for i in range(8)],
            "response": [f"It is {i + 1}." for i in range(8)],
            "split": ["train"] * 7 + ["validation"],
        },
        schema_overrides={"history": pl.List(TURN)},
    )


def trained(folder: Path, rows: pl.DataFrame, adapter: Path) -> tuple[Inference, list[str], LoraSpec]:
    """Train LoRA for a step with the spec of this base, and save it."""
    own = Hardware(tier="cpu", base=str(folder))
    inference = Inference(hardware=own)
    base = inference.resolve("base")
    spec = replace(own.spec(LoraSpec()), learning_rate=0.1, scored_rows=2, **ONE_STEP)
    setup = TrainingSetup("lora_adapter", base.name, base.context_tokens, own.limits(), silent)
    result = train_lora(inference.load_base(base), rows, spec, setup)
    adapter.mkdir()
    result.save(adapter)
    weights = read_weights(adapter)
    assert module_problem(weights, spec.target_modules) == ""
    assert count_problem(weights, {"rank": spec.rank}, result.outcome.trainable_parameters) == ""
    assert result.outcome.total_parameters - result.outcome.trainable_parameters == count_parameters(folder)
    return inference, result.outcome.events, spec


@pytest.mark.parametrize("kind", TARGETS)
def test_a_base_is_trained_generates_and_is_scored(
    kind: str, tiny_models: Mapping[str, Path], rows: pl.DataFrame, tmp_path: Path
) -> None:
    inference, events, spec = trained(tiny_models[kind], rows, tmp_path / "adapter")
    base = inference.resolve("base")
    assert spec.target_modules == TARGETS[kind]
    assert base.context_tokens == 256
    assert any("using attention eager" in event for event in events) == (kind == "gemma2")
    stored = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert stored["fan_in_fan_out"] == (kind == "gpt2")  # Conv1D stores (inputs, outputs)
    written = {}
    for adapter in (None, tmp_path / "adapter"):
        generator = inference.load_generator(base, adapter)
        assert generator.context_tokens == 256
        prompts = [generator.encode_chat([{"role": "user", "content": "Hi " * n}]) for n in (1, 9, 40)]
        together = generator.generate(prompts, [1, 2, 3], GREEDY)
        alone = [generator.generate([prompt], [1], GREEDY)[0] for prompt in prompts]
        assert [c.text for c in together] == [c.text for c in alone]  # pads change nothing, nor does a sliding window
        written[adapter] = [c.text for c in together]
    assert written[None] != written[tmp_path / "adapter"]
    suite = SUITES["world_choice"]
    items = [item for item in suite.items(None) if item.split == "test"][:3]
    assert len(chosen(inference, items, tmp_path / "adapter")) == 3


def chosen(inference: Inference, items: list[Item], adapter: Path) -> list[str]:
    """Return the most likely choices of the adapted model according to the lm-eval harness."""
    pair = inference.load_adapted(inference.resolve("base"), adapter)
    return list(lm_eval_harness.score_choices(pair, SUITES["world_choice"], items, batch_size=4))


def test_an_architecture_without_the_tier_s_attention_falls_back_and_says_so(
    tiny_models: Mapping[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    inference = Inference(hardware=Hardware(tier="cpu", base=str(tiny_models["gemma2"])))
    with caplog.at_level(logging.WARNING):
        network, _ = inference.load_base(inference.resolve("base"))
    assert network.config._attn_implementation == "eager"
    assert "Transformers has no sdpa attention for" in caplog.text


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "phi3", "qwen3"])
def test_a_trained_base_ends_its_answers(kind: str, tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    count = 32
    rows = pl.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(count)],
            "history": [[] for _ in range(count)],
            "instruction": ["Say yes."] * count,
            "response": ["Yes."] * count,
            "split": ["train"] * (count - 1) + ["validation"],
        },
        schema_overrides={"history": pl.List(TURN)},
    )
    own = Hardware(tier="cpu", base=str(tiny_models[kind]))
    inference = Inference(hardware=own)
    base = inference.resolve("base")
    spec = replace(own.spec(LoraSpec()), learning_rate=0.02, epochs=20.0, rank=16, alpha=32, batch_size=8)
    setup = TrainingSetup("lora_adapter", base.name, base.context_tokens, own.limits(), silent)
    result = train_lora(inference.load_base(base), rows, spec, setup)
    (tmp_path / "adapter").mkdir()
    result.save(tmp_path / "adapter")
    generator = inference.load_generator(base, tmp_path / "adapter")
    prompt = generator.encode_chat([{"role": "user", "content": "Say yes."}])
    (answer,) = generator.generate([prompt], [1], replace(GREEDY, max_tokens=16))
    assert (answer.text.strip(), answer.finish_reason) == ("Yes.", "stop")


@pytest.mark.parametrize("pad", ["absent", "end of a turn"])
def test_a_base_without_a_pad_of_its_own_is_trained(
    tiny_models: Mapping[str, Path], rows: pl.DataFrame, tmp_path: Path, pad: str
) -> None:
    folder = Path(shutil.copytree(tiny_models["llama"], tmp_path / "base"))
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        settings.pop("pad_token_id", None)
        settings.pop("pad_token", None)
        if name == "tokenizer_config.json" and pad == "end of a turn":
            settings["pad_token"] = "<|eot_id|>"  # noqa: S105 - a control token
        (folder / name).write_text(json.dumps(settings))
    inference, _, _ = trained(folder, rows, tmp_path / "adapter")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token == ("<|finetune_right_pad_id|>" if pad == "absent" else tokenizer.eos_token)
    generator = inference.load_generator(inference.resolve("base"), tmp_path / "adapter")
    prompt = generator.encode_chat([{"role": "user", "content": "Hi"}])
    assert generator.generate([prompt, [*prompt, *prompt]], [1, 2], GREEDY)


def test_a_base_without_chat_template_gets_the_declared_default(
    tiny_models: Mapping[str, Path], rows: pl.DataFrame, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_models["qwen2"], tmp_path / "base"))
    (folder / "chat_template.jinja").unlink()
    inference, _, _ = trained(folder, rows, tmp_path / "adapter")
    base = inference.resolve("base")
    assert inference.template_source(base).startswith("the default for the control tokens")
    shipped = Inference(hardware=Hardware(tier="cpu"))
    assert shipped.template_source(shipped.resolve("base")) == "the model's own"


def test_a_teacher_without_chat_template_is_refused(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_models["qwen2"], tmp_path / "teacher"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelFilesError, match="the teacher must have a chat template"):
        Inference(hardware=Hardware(tier="cpu", teacher=str(folder))).resolve("teacher")


def test_modules_that_the_base_lacks_are_named(
    tiny_models: Mapping[str, Path], rows: pl.DataFrame, tmp_path: Path
) -> None:
    own = Hardware(tier="cpu", base=str(tiny_models["gpt2"]))
    base = Inference(hardware=own).resolve("base")
    setup = TrainingSetup("lora_adapter", base.name, base.context_tokens, own.limits(), silent)
    with pytest.raises(TrainingError, match=r"q_proj match no layer; the model has c_attn, c_fc, c_proj, lm_head"):
        train_lora(Inference(hardware=own).load_base(base), rows, LoraSpec(target_modules=["q_proj"]), setup)
