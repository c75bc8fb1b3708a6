"""Test the vLLM generator against a small fake that follows vLLM's documentation."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from resources.hardware import TIERS
from synth_assets.embedded import model_path
from synth_assets.llm.prompt_formats import FAMILIES
from synth_assets.llm.protocols import Sampling
from synth_assets.llm.vllm_generator import VllmGenerator, lora_rank

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=4)


@dataclass
class SamplingParams:
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop_token_ids: list[int]
    logit_bias: dict[int, float] | None
    detokenize: bool


@dataclass
class Text:
    token_ids: list[int]


@dataclass
class Output:
    outputs: list[Text]


@dataclass
class Favourites:
    """Fake model that repeats its favourite token unless a bias makes another one likelier."""

    favourites: list[int] = field(default_factory=list)
    asked: list[SamplingParams] = field(default_factory=list)

    def generate(
        self, requests: Sequence[dict[str, list[int]]], parameters: Sequence[SamplingParams], **_: object
    ) -> list[Output]:
        self.asked += parameters
        return [Output([Text(self._write(each))]) for each in parameters]

    def _write(self, asked: SamplingParams) -> list[int]:
        bias = asked.logit_bias or {}
        token = max(self.favourites, key=lambda t: bias.get(t, 0.0) - self.favourites.index(t))
        return [token] * (1 if token in asked.stop_token_ids else asked.max_tokens)


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (9, 16), (64, 64), (65, 128), (512, 512)])
def test_max_lora_rank_covers_the_adapter(tmp_path: Path, rank: int, room: int) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    assert lora_rank(tmp_path) == room
    assert lora_rank(None) == 8


def test_a_rank_beyond_what_vllm_takes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 513}))
    with pytest.raises(ValueError, match="must be at most 512 for vLLM, got 513"):
        lora_rank(tmp_path)


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> VllmGenerator:
    vllm: Any = ModuleType("vllm")
    lora: Any = ModuleType("vllm.lora.request")
    network = Favourites()
    vllm.__version__, vllm.LLM, vllm.SamplingParams = "0", lambda **_: network, SamplingParams
    lora.LoRARequest = object
    for name, module in (("vllm", vllm), ("vllm.lora", ModuleType("vllm.lora")), ("vllm.lora.request", lora)):
        monkeypatch.setitem(sys.modules, name, module)
    generator = VllmGenerator(model_path("teacher"), TIERS["a100"], model="m", revision="r")
    network.favourites = [generator.encode_template(text)[0] for text in ("#", "a", "b")]
    return generator


def asked(generator: VllmGenerator) -> list[SamplingParams]:
    return generator._network.asked


def test_banned_tokens_do_not_come_first_and_may_come_later(generator: VllmGenerator) -> None:
    heading = generator.encode_template("#")[0]
    [free] = generator.generate([[1, 2]], [7], SAMPLING)
    assert free.text == "####"
    [banned] = generator.generate([[1, 2]], [7], replace(SAMPLING, banned_first=(heading,)))
    assert banned.text == "a###"
    assert (banned.finish_reason, banned.completion_tokens, banned.prompt_tokens) == ("length", 4, 2)
    first, rest = asked(generator)[-2:]
    assert (first.max_tokens, first.logit_bias, first.seed) == (1, {heading: -100.0}, 7)
    assert (rest.max_tokens, rest.logit_bias, rest.seed) == (3, None, 8)


def test_stop_token_as_first_token_ends_the_text(generator: VllmGenerator) -> None:
    end = generator.encode_template("<|eot_id|>")[0]
    generator._network.favourites = [generator.encode_template("#")[0], end]
    sampling = replace(SAMPLING, banned_first=(generator._network.favourites[0],), stop=FAMILIES["embedded"].stop)
    [said] = generator.generate([[1, 2]], [7], sampling)
    assert (said.text, said.finish_reason) == ("", "stop")
    assert len(asked(generator)) == 1


def test_encoding_matches_other_engines(generator: VllmGenerator) -> None:
    pre_query = generator.encode_template(FAMILIES["embedded"].pre_query)
    assert generator.encode_user_turn([]) == pre_query
    assert generator.context_tokens == 256
