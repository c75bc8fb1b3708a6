"""Catalog rows against the Transformers classes, and the effect of selecting a row."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from resources.hardware import PRESETS, TIERS, Hardware
from synth_assets.cli.models import chosen_text, models_text
from synth_assets.llm.catalog import (
    FUSED,
    MODELS,
    SEPARATE,
    Model,
    ModelDimensions,
    fits,
    lora_parameters,
    memory_estimate,
    model_at,
)
from synth_assets.llm.chat_encoding import TEMPLATES_BY_TOKEN
from synth_assets.llm.prompt_formats import FAMILIES, family_of
from synth_assets.training.specs import LoraSpec, PromptTuningSpec

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "models.md"
ROWS = [pytest.param(row, id=name) for name, row in MODELS.items()]
TOY = Model("a/b", ("base",), "llama3", 1_000, ModelDimensions(2, 10, 20, 2, 1, 5, 30), 64, "mit")


class Overrides(dg.Config):
    target_modules: list[str] | None = None


@pytest.mark.parametrize("row", ROWS)
def test_the_published_count_is_that_of_the_shape(row: Model) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = {"llama3": "llama", "zephyr": "llama", "smollm2": "llama"}.get(row.family, row.family)
    shape = row.shape
    config = AutoConfig.for_model(
        kind,
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        pad_token_id=0,
        **({} if kind in ("qwen2", "phi3") else {"head_dim": shape.head}),  # these two derive it
    )
    with torch.device("meta"):  # no weight takes memory
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == row.parameters
    linear = {name.rpartition(".")[2]: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    head = linear.pop("lm_head")
    assert (head.in_features, head.out_features) == (shape.hidden, shape.vocabulary)
    assert set(linear) == set(row.targets)
    assert {name: (m.in_features, m.out_features) for name, m in linear.items()} == {
        name: size for name, size in shape.outputs().items() if name in row.targets
    }


@pytest.mark.parametrize("row", ROWS)
def test_row_matches_the_template_of_its_family(row: Model) -> None:
    family = FAMILIES[row.family]
    assert family_of(row.repository) == row.family
    if row.roles == ("base",):  # its tokenizer has no template of its own
        assert any(token in family.stop for token in TEMPLATES_BY_TOKEN)


def test_presets_refer_to_catalog_rows() -> None:
    for models in PRESETS.values():
        for role in ("teacher", "base"):
            row = model_at(models[role])
            assert row is not None
            assert role in row.roles


def test_short_name_selects_repository_and_target_modules() -> None:
    phi = Hardware(tier="h100", base="phi-3-mini-4k")
    assert phi.location("base") == "microsoft/Phi-3-mini-4k-instruct"
    assert phi.spec(LoraSpec()).target_modules == FUSED
    assert Hardware(tier="h100", base="microsoft/Phi-3-mini-4k-instruct@main").spec(LoraSpec()).target_modules == FUSED
    assert phi.spec(LoraSpec(), Overrides(target_modules=["o_proj"])).target_modules == ("o_proj",)
    assert phi.spec(LoraSpec(target_modules=["down_proj"])).target_modules == ("down_proj",)  # meant, not left out
    assert phi.spec(PromptTuningSpec()) == PromptTuningSpec()
    assert Hardware(tier="h100").spec(LoraSpec()).target_modules == SEPARATE
    assert Hardware(tier="h100", base="/some/folder").spec(LoraSpec()).target_modules == SEPARATE


def test_base_only_model_cannot_be_the_teacher() -> None:
    with pytest.raises(ValueError, match=r"llama-3\.2-1b cannot be the teacher model; .* qwen2\.5-7b-instruct"):
        Hardware(tier="h100", teacher="llama-3.2-1b").location("teacher")
    with pytest.raises(ValueError, match="cannot be the reward model; the named models that can: none"):
        Hardware(tier="h100", reward="phi-3-mini-4k").location("reward")


def test_lora_of_a_toy_by_hand() -> None:
    # q 10>10, k and v 10>5, o 10>10, gate and up 10>20, down 20>10: 20 + 15 + 15 + 20 + 30 + 30 + 30 = 160, two layers
    assert lora_parameters(TOY, 3) == 2 * 3 * 160
    # fused: qkv 10>20, gate and up 10>40: 30 + 20 + 50 + 30 = 130
    assert lora_parameters(replace(TOY, targets=FUSED), 3) == 2 * 3 * 130


def test_memory_of_a_toy_by_hand() -> None:
    tier = replace(TIERS["a100"], batch_size=2, engine="transformers")
    needed = memory_estimate(TOY, tier, rank=3)
    weights = 2 * 1_000
    assert needed.generate == weights + 2 * 2 * 5 * 2 * 64 * 1_024  # key and value, two layers, five wide, two bytes
    adapter, activations, logits = 960 * 16, 34 * 10 * 2, 4 * 30
    assert needed.train == weights + adapter + 2 * 1_024 * (activations + logits)
    # 600 parameters of embeddings keep two bytes, the other 400 take half of one; below 40 GB one layer's activations
    # stay, and what goes into each layer
    small = memory_estimate(TOY, replace(tier, memory_gb=16, quantisation="nf4"), rank=3)
    assert small.train == 1_200 + 200 + adapter + 2 * 1_024 * (34 * 10 + 2 * 10 * 2 + logits)


def test_model_may_use_nine_tenths_of_the_memory() -> None:
    assert fits(0.9e9, 1.0)
    assert not fits(0.91e9, 1.0)


def test_listing_marks_untested_models() -> None:
    text = models_text(Hardware(tier="rtx24"))
    for name, row in MODELS.items():
        line = next(line for line in text.splitlines() if line.startswith(name + " "))
        assert row.licence in line
        assert line.endswith(row.tested or "untested")
        assert ("gated" in line) == bool(row.gate)
        assert len(line) <= 120
    assert "derived" in text.lower()
    text = chosen_text(Hardware(tier="t4", preset="llama", teacher="qwen2.5-7b-instruct"))
    assert "teacher Qwen/Qwen2.5-7B-Instruct: licence apache-2.0, untested" in text
    assert "in float16 (t4)" in text
    assert "base meta-llama/Llama-3.2-3B" in text
    assert "HF_TOKEN" in text
    assert chosen_text(Hardware(tier="cpu")).startswith("the teacher and the base are not in the catalog")


def test_the_documentation_has_every_row() -> None:
    catalog = DOCS.read_text("utf-8").partition("\n## Sizes")[0]
    written = [line for line in catalog.splitlines() if line.startswith("| `")]
    assert written == documented()


def documented() -> list[str]:
    """Return the lines of the table in docs/reference/models.md."""
    return [
        f"| `{name}` | {row.repository} | {', '.join(row.roles)} | {row.family} | {', '.join(row.targets)} | "
        f"{row.context_tokens:,} | {row.licence} | {row.gate or '-'} | "
        f"{row.caveat or '-'} | {row.tested or 'untested'} |"
        for name, row in MODELS.items()
    ]
