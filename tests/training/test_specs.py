import pytest

from synth_assets.training.specs import (
    DpoSpec,
    LoraSpec,
    OptimizationSpec,
    PromptTuningSpec,
    RejectionSamplingSpec,
    spec_settings,
)


def test_reference_values() -> None:
    lora, prompt, dpo = LoraSpec(), PromptTuningSpec(), DpoSpec()
    assert (lora.rank, lora.alpha, lora.dropout, lora.epochs, lora.learning_rate) == (8, 16, 0.05, 3.0, 2e-4)
    assert lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (lora.schedule, lora.warmup_ratio, lora.seed) == ("cosine", 0.03, 42)
    assert (prompt.virtual_tokens, prompt.learning_rate) == (20, 3e-4)
    assert (dpo.beta, dpo.epochs, dpo.learning_rate) == (0.1, 1.0, 5e-5)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (LoraSpec, "learning_rate", 0.0),
        (LoraSpec, "learning_rate", float("nan")),
        (LoraSpec, "learning_rate", float("inf")),
        (LoraSpec, "weight_decay", float("inf")),
        (LoraSpec, "phase_rates", (2.5, float("inf"), 0.1, 0.1)),
        (LoraSpec, "max_steps", -1),
        (LoraSpec, "seed", -1),
        (LoraSpec, "seed", 2**32),
        (LoraSpec, "rank", -1),
        (LoraSpec, "rank", 2.5),
        (LoraSpec, "alpha", True),
        (LoraSpec, "target_modules", ("q_proj", "")),
        (DpoSpec, "beta", float("inf")),
        (LoraSpec, "epochs", -1.0),
        (LoraSpec, "warmup_ratio", 1.0),
        (LoraSpec, "weight_decay", -0.1),
        (LoraSpec, "schedule", "triangle"),
        (LoraSpec, "batch_size", 0),
        (LoraSpec, "batch_tokens", 0),
        (LoraSpec, "validate_every", 0),
        (LoraSpec, "stop_patience", -1),
        (LoraSpec, "order", "alphabet"),
        (LoraSpec, "difficulty", "mood"),
        (LoraSpec, "phases", (0.5, 0.6, 0.2)),
        (LoraSpec, "phases", (0.5, 0.5)),
        (LoraSpec, "phase_rates", (2.5, 1.0, 0.0, 0.1)),
        (LoraSpec, "reduce_patience", -1),
        (LoraSpec, "reduce_factor", 1.0),
        (LoraSpec, "reduce_floor", 0.0),
        (LoraSpec, "rank", 0),
        (LoraSpec, "dropout", 1.0),
        (LoraSpec, "target_modules", ()),
        (PromptTuningSpec, "virtual_tokens", 0),
        (PromptTuningSpec, "initialisation", "TEXT"),
        (DpoSpec, "beta", 0.0),
        (DpoSpec, "loss", "hinge"),
        (DpoSpec, "label_smoothing", 0.5),
        (DpoSpec, "dpo_weight", 0.0),
        (RejectionSamplingSpec, "accumulation", -1),
    ],
)
def test_a_bad_value_is_refused_by_its_field(kind: type[OptimizationSpec], field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        kind(**{field: value})


def test_label_smoothing_needs_the_sigmoid_loss() -> None:
    assert DpoSpec(label_smoothing=0.1).label_smoothing == 0.1
    with pytest.raises(ValueError, match="label_smoothing"):
        DpoSpec(label_smoothing=0.1, loss="ipo")


def test_modules_from_a_list_become_a_tuple() -> None:
    assert LoraSpec(target_modules=["q_proj"]).target_modules == ("q_proj",)


def test_no_steps_means_by_epochs() -> None:
    assert LoraSpec(max_steps=0) == LoraSpec()
    assert "max_steps" not in spec_settings(LoraSpec())
    assert spec_settings(LoraSpec(max_steps=3))["max_steps"] == 3
