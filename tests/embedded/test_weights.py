import hashlib
import json
import re
import warnings
from pathlib import Path
from random import Random

import pytest

from synth_assets.embedded import MODELS, WEIGHTS, model_path
from synth_assets.embedded.build import build
from synth_assets.embedded.chat_format import render
from synth_assets.embedded.corpus import chat_example
from synth_assets.embedded.qualities import TARGETS
from synth_assets.embedded.recipe import file_hashes, read_manifest, recipe_hash
from synth_assets.embedded.tokenizer import VOCABULARY_SIZE, load_tokenizer

MANIFEST = read_manifest(WEIGHTS)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match="no embedded model 'judge'; there are teacher, base, reward"):
        model_path("judge")


def test_the_files_are_those_of_the_manifest() -> None:
    assert file_hashes(WEIGHTS) == MANIFEST["files"]


def test_the_weights_come_from_the_recipe_as_it_is_now() -> None:
    assert recipe_hash() == MANIFEST["recipe"], (
        "the recipe changed: rebuild the weights with `synth embedded build`; where the change cannot alter them (a "
        f"name, a message), write {recipe_hash()} into manifest.json as recipe"
    )


@pytest.mark.parametrize("name", TARGETS)
def test_a_quality_reaches_its_target(name: str) -> None:
    measured = MANIFEST["qualities"][name]
    assert measured["value"] >= TARGETS[name]
    assert measured["n"] >= 600


def test_teacher_leaves_something_to_improve() -> None:
    qualities = MANIFEST["qualities"]
    assert qualities["teacher_first_rate"]["value"] < 0.7
    assert qualities["base_strict_rate"]["value"] < qualities["teacher_first_rate"]["value"] - 0.2


@pytest.mark.parametrize("name", MODELS)
def test_no_configuration_names_a_path(name: str) -> None:
    for file in model_path(name).glob("*.json"):
        assert not re.search(r'"/\w+/', file.read_text()), file
    assert "_name_or_path" not in json.loads((model_path(name) / "config.json").read_text())


@pytest.mark.parametrize("name", MODELS)
def test_models_load_in_float32_without_a_warning(name: str, caplog: pytest.LogCaptureFixture) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = kind.from_pretrained(model_path(name), dtype=torch.float32)
    assert not caplog.records
    assert model.dtype == torch.float32
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_100_000
    if name == "reward":
        assert model.config.num_labels == 1


def test_all_models_share_one_tokenizer() -> None:
    files = [(model_path(name) / "tokenizer.json").read_bytes() for name in MODELS]
    assert len({hashlib.sha256(content).hexdigest() for content in files}) == 1


def test_prompt_and_answer_tokenize_apart_as_they_do_together() -> None:
    tokenizer = load_tokenizer(model_path("base"))
    random = Random(9)
    for _ in range(500):
        turns = chat_example(random)
        prompt, answer = render(turns[:1], add_generation_prompt=True), turns[1][1] + "<|eot_id|>"
        parts = [tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, answer, prompt + answer)]
        assert parts[0] + parts[1] == parts[2]
        assert tokenizer.decode(parts[2]) == prompt + answer


def test_the_chat_template_writes_the_format_and_marks_the_answer() -> None:
    tokenizer = load_tokenizer(model_path("teacher"))
    assert len(tokenizer) == VOCABULARY_SIZE
    messages = [{"role": "user", "content": "Add 2 and 3."}, {"role": "assistant", "content": "2 plus 3 is 5."}]
    turns = [(message["role"], message["content"]) for message in messages]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == render(turns)
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(marked) == "2 plus 3 is 5.<|eot_id|>"


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_rebuild_has_the_same_qualities(tmp_path: Path) -> None:
    lines: list[str] = []
    build(tmp_path, progress=lines.append)
    rebuilt = read_manifest(tmp_path)
    assert rebuilt["recipe"] == MANIFEST["recipe"]
    assert not list(tmp_path.glob("parts-*"))
    for name, target in TARGETS.items():
        value = rebuilt["qualities"][name]["value"]
        assert value >= target
        # on another machine training rounds otherwise: four standard errors, each .02 at n = 680 and p = 1/2
        assert abs(value - MANIFEST["qualities"][name]["value"]) < 0.08
