"""Default settings depend on the model's size, not on the tier."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from resources.hardware import TIERS, Hardware, cpu_has_bfloat16
from synth_assets.cli.models import chosen_text, models_text
from synth_assets.cli.run import check_benchmarks
from synth_assets.cli.session import open_session
from synth_assets.evals import scoring
from synth_assets.evals.suites import find_suites
from synth_assets.llm import size_settings
from synth_assets.llm.size_settings import (
    EMBEDDED_SUITES,
    SIZES,
    SUITES,
    WRITTEN_SUITES,
    BaseSettings,
    RewardSettings,
    TeacherSettings,
    role_of_spec,
    size_class,
    size_of,
)
from synth_assets.stages.efficiency import latencies, variants
from synth_assets.stages.evaluation import profiles
from synth_assets.stages.generation import magpie
from synth_assets.stages.preference import candidates, pairs
from synth_assets.training import specs

WriteModel = Callable[..., Path]
SPECS = {
    spec.__name__: spec
    for spec in (
        magpie.MagpieSpec,
        candidates.CandidateSpec,
        candidates.OnPolicyCandidateSpec,
        pairs.PairSpec,
        scoring.EvaluationSpec,
        profiles.PreferenceSpec,
        variants.StudySpec,
        latencies.LatencySpec,
        specs.LoraSpec,
        specs.PromptTuningSpec,
        specs.DpoSpec,
        specs.KtoSpec,
        specs.OrpoSpec,
        specs.OnPolicyDpoSpec,
        specs.RejectionSamplingSpec,
        specs.RewardSpec,
    )
}


@pytest.fixture
def small(write_model: WriteModel) -> str:
    """Return a folder with the dimensions of SmolLM2-135M."""
    return str(write_model())


def test_every_setting_is_a_field_of_its_spec() -> None:
    for group in (TeacherSettings, BaseSettings, RewardSettings):
        for kind, settings in get_type_hints(group).items():
            assert set(get_type_hints(settings)) <= {field.name for field in fields(SPECS[kind])}
    for row in SIZES.values():
        for values in (row.teacher, row.base, row.reward):
            for kind, setting in values.items():
                SPECS[kind](**setting)  # type: ignore[arg-type]
        assert find_suites(row.suites)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (978_000, "below 500M"),
        (494_032_768, "below 500M"),  # Qwen2.5-0.5B
        (499_999_999, "below 500M"),
        (500_000_000, "1-4B"),
        (5_499_999_999, "1-4B"),
        (5_500_000_000, "7-14B"),
        (70_000_000_000, "7-14B"),
    ],
)
def test_edges_of_the_classes(parameters: int, name: str) -> None:
    assert size_class(parameters) == name


def test_a_folder_is_counted_by_the_headers_of_its_weights(write_model: WriteModel) -> None:
    actual = size_of(str(write_model()), "base")
    # by hand: 49,152 x 576 embeddings, 30 blocks of 576 x (2 x 576 + 2 x 192 + 3 x 1,536) + 2 x 576, a last norm
    assert actual.parameters == 49_152 * 576 + 30 * (576 * (2 * 576 + 2 * 192 + 3 * 1_536) + 2 * 576) + 576
    assert (actual.name, actual.source) == ("below 500M", "weights")
    assert actual.text() == "below 500M (1.35e+08 parameters, from its weights)"


def test_without_weights_the_shapes_of_the_configuration_are_counted(write_model: WriteModel) -> None:
    folder = write_model(weights=False)
    path = folder / "config.json"
    large = {"hidden_size": 4_096, "intermediate_size": 14_336, "num_attention_heads": 32, "num_key_value_heads": 8}
    path.write_text(json.dumps(json.loads(path.read_text()) | large))
    actual = size_of(str(folder), "base")
    assert (actual.name, actual.source) == ("7-14B", "config")


def test_catalog_models_need_no_file_and_others_are_unknown() -> None:
    assert size_of("qwen2.5-1.5b", "base").text() == "1-4B (1.54e+09 parameters, from the catalog)"
    assert size_of("Qwen/Qwen2.5-7B-Instruct@main", "teacher").name == "7-14B"
    unknown = size_of("nobody/never-fetched", "base")
    assert (unknown.name, unknown.source) == ("1-4B", "unknown")
    assert "size unknown until the model is downloaded" in unknown.text()


def test_model_on_a_cpu_gets_settings_of_its_size(small: str) -> None:
    own = Hardware(tier="cpu", teacher=small, base=small, reward=small)
    drawn = own.spec(magpie.MagpieSpec())
    assert (drawn.temperature, drawn.top_p) == (1.0, 0.95)
    assert (drawn.max_instruction_tokens, drawn.max_response_tokens) == (160, 256)
    assert drawn.samples == TIERS["cpu"].samples  # how much is made stays with the tier
    assert own.spec(candidates.CandidateSpec()).max_response_tokens == 256
    assert own.spec(scoring.EvaluationSpec()).max_tokens == 256
    tuned = own.spec(specs.LoraSpec())
    assert (tuned.learning_rate, tuned.epochs, tuned.dropout) == (5e-4, 3.0, 0.05)  # not the 5e-3 and 6 of the embedded
    assert own.spec(specs.PromptTuningSpec()).learning_rate == 1e-2
    assert own.spec(specs.DpoSpec()) == specs.DpoSpec(learning_rate=1e-4)
    assert own.spec(pairs.PairSpec()) == pairs.PairSpec()
    assert own.spec(variants.StudySpec()) == variants.StudySpec()
    assert own.row().suites == SUITES


def test_each_spec_takes_settings_of_its_own_model(small: str) -> None:
    embedded = Hardware(tier="cpu")
    for own in (Hardware(tier="cpu", base=small), Hardware(tier="cpu", teacher=small)):
        for kind, spec in SPECS.items():
            role = role_of_spec(kind)
            assert role is not None
            default: Any = spec()
            same = own.location(role) == embedded.location(role)
            assert (own.spec(default) == embedded.spec(default)) == same, (kind, role)
    assert Hardware(tier="cpu", base=small).row().suites == SUITES
    assert Hardware(tier="cpu", teacher=small).row().suites == EMBEDDED_SUITES


def test_the_shipped_models_keep_their_settings_on_every_tier() -> None:
    roles = {"teacher": "embedded:teacher", "base": "embedded:base", "reward": "embedded:reward"}
    for tier in [name for name, row in TIERS.items() if not row.overrides]:  # those of laptop are for its model
        own = Hardware(tier=tier, **roles)
        assert own.spec(specs.LoraSpec()).learning_rate == 5e-3
        assert own.spec(magpie.MagpieSpec()).max_response_tokens == 64
        assert own.row().suites == EMBEDDED_SUITES


def test_commands_show_the_size_in_use(small: str) -> None:
    own = Hardware(tier="cpu", teacher=small)
    text = models_text(own)
    assert f"teacher {small}: below 500M (1.35e+08 parameters, from its weights)" in text
    assert "base embedded:base: embedded" in text
    # 0.54 GB of float32 weights, and keys and values of 64 texts: 2 x 30 layers x 192 x 4 bytes x 65,536 tokens
    memory = "about 1.8 GB (derived)" if cpu_has_bfloat16() else "about 3.6 GB (derived)"
    assert memory in chosen_text(own)


def test_target_modules_come_from_the_architecture(write_model: WriteModel, small: str) -> None:
    assert Hardware(tier="cpu", base=small).spec(specs.LoraSpec()).target_modules == specs.ATTENTION + specs.MLP
    gpt = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 1_024}
    folder = write_model(gpt, "gpt", weights=False)
    assert Hardware(tier="cpu", base=str(folder)).spec(specs.LoraSpec()).target_modules == ("c_attn", "c_proj", "c_fc")
    assert size_settings.size_of(str(folder), "base").parameters == (1_024 + 128) * 64 + 2 * 49_984 + 2 * 64


def test_a_run_whose_suites_lack_their_files_is_refused_at_once(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_BASE", small)
    session = open_session("cpu")
    message = r"no file mmlu.* --set 'benchmark_items\.suites=\[instruction_following, knowledge, refusal"
    with pytest.raises(FileNotFoundError, match=message):
        check_benchmarks(session, {"ops": {}})
    written = {"benchmark_items": {"config": {"suites": list(WRITTEN_SUITES)}}}
    check_benchmarks(session, {"ops": written})
    monkeypatch.delenv("SYNTH_BASE")
    check_benchmarks(open_session("cpu"), {"ops": {}})  # the mini world needs no file
