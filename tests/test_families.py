from collections.abc import Sequence

import pytest

from synth_assets.embedded import model_path
from synth_assets.families import FAMILIES, family_of, opens_like, pre_query_of_template

LLAMA_OPENING = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
WRITTEN = {  # what each family's published chat template writes before a user's first word
    "llama3": LLAMA_OPENING + "<|start_header_id|>user<|end_header_id|>\n\n",
    "embedded": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
    "qwen2.5": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.<|im_end|>\n<|im_start|>user\n",
    "gemma2": "<bos><start_of_turn>user\n",
    "phi3": "<|user|>\n",
    "mistral": "<s>[INST] ",
    "zephyr": "<|user|>\n",
}


class WrittenTemplate:
    """A tokenizer whose template is a text before and a text after the user's words."""

    def __init__(self, before: str, after: str = "<end>") -> None:
        self.before, self.after = before, after

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], *, tokenize: bool) -> str:
        assert not tokenize
        return self.before + conversation[0]["content"] + self.after


@pytest.mark.parametrize("key", FAMILIES)
def test_each_row_opens_like_its_published_template(key: str) -> None:
    assert opens_like(FAMILIES[key], pre_query_of_template(WrittenTemplate(WRITTEN[key])))


@pytest.mark.parametrize("key", FAMILIES)
def test_a_template_of_another_kind_does_not_pass(key: str) -> None:
    assert not opens_like(FAMILIES[key], pre_query_of_template(WrittenTemplate("### Instruction:\n")))


def test_a_missing_begin_of_text_does_not_pass() -> None:
    assert not opens_like(FAMILIES["llama3"], "<|start_header_id|>user<|end_header_id|>\n\n")


def test_a_template_that_drops_the_words_is_refused() -> None:
    class Mute(WrittenTemplate):
        def apply_chat_template(self, conversation: Sequence[dict[str, str]], *, tokenize: bool) -> str:
            return self.before

    with pytest.raises(ValueError, match="does not write the user's words"):
        pre_query_of_template(Mute("x"))


@pytest.mark.parametrize(
    ("name", "template", "key"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "{{ '<|start_header_id|>' + role }}", "llama3"),
        ("embedded:teacher", "{{ '<|start_header_id|>' + role }}", "embedded"),
        ("/models/my-own-chat", "{{ '<|start_header_id|>' + role }}", "llama3"),
        ("Qwen/Qwen2.5-7B-Instruct", "<|im_start|>", "qwen2.5"),
        ("google/gemma-2-9b-it", "<start_of_turn>", "gemma2"),
        ("microsoft/Phi-3-mini-4k-instruct", "'<|user|>\n' + content + '<|end|>\n'", "phi3"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "[INST]", "mistral"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "'<|user|>\n' + content + eos_token", "zephyr"),
        ("HuggingFaceH4/zephyr-7b-beta", "'<|user|>\n' + content + eos_token", "zephyr"),
        ("meta-llama/Llama-3.2-3B", "", "llama3"),
    ],
)
def test_a_family_is_found_by_template_then_by_name(name: str, template: str, key: str) -> None:
    assert family_of(name, template) == key


def test_a_template_wins_over_a_name() -> None:
    assert family_of("someone/Llama-3-Qwen-merge", "<|im_start|>") == "qwen2.5"


def test_no_family_says_where_to_add_one() -> None:
    with pytest.raises(ValueError, match="add a row to FAMILIES"):
        family_of("someone/unheard-of")


def test_the_shipped_teacher_opens_as_its_row_says() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path("teacher"))
    assert pre_query_of_template(tokenizer) == FAMILIES["embedded"].pre_query
    assert family_of("embedded:teacher", tokenizer.chat_template) == "embedded"
    assert set(FAMILIES["embedded"].stop) <= set(tokenizer.get_vocab())
