"""Compare each row of FAMILIES with a small tokenizer that has the documented chat template."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synth_assets.embedded import model_path
from synth_assets.llm.chat_encoding import encode_chat, encode_user_turn
from synth_assets.llm.prompt_formats import FAMILIES, check_template, family_of, matches_pre_query, template_pre_query

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEADERS = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
DATE = (  # Llama 3.1 to 3.3 always open with a system turn
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string | default('1 Jan') + '\n\n' }}"
    "{{ system + '<|eot_id|>' }}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_2_5 = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{% endif %}" + CHATML
)
QWEN_3 = (  # the last answer follows a think block, empty where nothing was thought
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
TURNS = (
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' }}"
    "{% if loop.first %}{{ first_user_prefix }}{% endif %}{{ m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA_2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    + TURNS.replace("{% if loop.first %}{{ first_user_prefix }}{% endif %}", "")
)
GEMMA_3 = (
    "{{ bos_token }}{% set first_user_prefix = '' %}{% if messages[0]['role'] == 'system' %}"
    "{% set first_user_prefix = messages[0]['content'] + '\n\n' %}{% set messages = messages[1:] %}{% endif %}" + TURNS
)
PHI_3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
MISTRAL = (  # the system prompt stands in the last user's turn
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + (system if loop.last else '') + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token }}"
    "{% else %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
WRITTEN = {  # model -> (row, begin of text, end of text, template)
    "Meta-Llama-3-8B-Instruct": ("llama3", "<|begin_of_text|>", "<|end_of_text|>", "{{ bos_token }}" + HEADERS),
    "Llama-3.1-8B-Instruct": ("llama3", "<|begin_of_text|>", "<|end_of_text|>", DATE + HEADERS),
    "Llama-3.2-3B-Instruct": ("llama3", "<|begin_of_text|>", "<|end_of_text|>", DATE + HEADERS),
    "Llama-3.3-70B-Instruct": ("llama3", "<|begin_of_text|>", "<|end_of_text|>", DATE + HEADERS),
    "Qwen2-7B-Instruct": ("qwen2", None, "<|endoftext|>", CHATML),
    "Qwen2.5-7B-Instruct": ("qwen2", None, "<|endoftext|>", QWEN_2_5),
    "Qwen3-4B": ("qwen3", None, "<|endoftext|>", QWEN_3),
    "gemma-2-9b-it": ("gemma2", "<bos>", "<eos>", GEMMA_2),
    "gemma-3-4b-it": ("gemma3", "<bos>", "<eos>", GEMMA_3),
    "Phi-3-mini-4k-instruct": ("phi3", "<s>", "<|endoftext|>", PHI_3),
    "Mistral-7B-Instruct-v0.3": ("mistral", "<s>", "</s>", MISTRAL),
    "zephyr-7b-beta": ("zephyr", "<s>", "</s>", ZEPHYR),
    "TinyLlama-1.1B-Chat-v1.0": ("zephyr", "<s>", "</s>", ZEPHYR),
}
MARKERS = r"<\|?[a-z_]+\|?>|</?s>|</?think>|\[/?INST\]"
EARLIER = [
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Nile."},
]
SYSTEM = {"role": "system", "content": "Help with mathematics."}
Make = Callable[[str], "PreTrainedTokenizerBase"]


@pytest.fixture
def tokenizer_of() -> Make:
    """Build a small tokenizer with the control tokens and the chat template of a model."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def make(name: str) -> "PreTrainedTokenizerBase":
        key, begin, end, template = WRITTEN[name]
        markers = sorted({*FAMILIES[key].stop, *re.findall(MARKERS, FAMILIES[key].pre_query + template), end})
        words = ["#", "##", "###", "####", " ", "\n", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:123"]
        core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(["?", *words])}, unk_token="?"))  # noqa: S106
        core.pre_tokenizer = pre_tokenizers.Split(Regex(r"#+|[\s\S]"), "isolated")
        core.add_special_tokens(markers)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=begin, eos_token=end, name_or_path=name)
        tokenizer.chat_template = template
        return tokenizer

    return make


def said(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(ids))


class WrittenTemplate:
    """Tokenizer whose chat template adds a prefix and a suffix to the user message."""

    def __init__(self, before: str, after: str = "<end>") -> None:
        self.before, self.after = before, after

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], *, tokenize: bool) -> str:
        assert not tokenize
        return self.before + conversation[0]["content"] + self.after


@pytest.mark.parametrize("name", WRITTEN)
def test_each_row_fits_the_template_as_documented(tokenizer_of: Make, name: str) -> None:
    tokenizer = tokenizer_of(name)
    actual = check_template(WRITTEN[name][0], tokenizer)
    assert actual.fits
    assert actual.missing_stops == ()
    assert actual.banned == FAMILIES[WRITTEN[name][0]].banned_first
    assert family_of(f"owner/{name}", WRITTEN[name][3]) == WRITTEN[name][0]
    assert family_of("/models/my-own-chat", WRITTEN[name][3]) == WRITTEN[name][0]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_row_of_another_family_does_not_fit(tokenizer_of: Make, name: str) -> None:
    key = WRITTEN[name][0]
    tokenizer = tokenizer_of(name)
    shape = (FAMILIES[key].pre_query, FAMILIES[key].stop)
    others = [other for other, row in FAMILIES.items() if (row.pre_query, row.stop) != shape]
    assert not [other for other in others if check_template(other, tokenizer).fits]


@pytest.mark.parametrize("name", WRITTEN)
def test_the_row_opens_the_first_turn_as_the_tokenizer_does(tokenizer_of: Make, name: str) -> None:
    tokenizer = tokenizer_of(name)
    opening = said(tokenizer, encode_user_turn(tokenizer, []))
    pre_query = FAMILIES[WRITTEN[name][0]].pre_query
    begin = WRITTEN[name][1] or ""
    assert opening.startswith(begin if pre_query.startswith(begin) else "")
    assert opening.endswith(pre_query.removeprefix(begin))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_next_user_turn_is_where_the_whole_chat_has_it(tokenizer_of: Make, name: str) -> None:
    tokenizer = tokenizer_of(name)
    opening = encode_user_turn(tokenizer, EARLIER)
    whole, _ = encode_chat(tokenizer, [*EARLIER, {"role": "user", "content": "And then"}])
    assert whole[: len(opening)] == opening
    text = said(tokenizer, opening)
    assert text.index("Name a river.") < text.index("The Nile.")
    assert text.endswith(FAMILIES[WRITTEN[name][0]].pre_query.removeprefix(WRITTEN[name][1] or ""))


@pytest.mark.parametrize("name", WRITTEN)
def test_a_system_prompt_stands_before_the_users_words_where_the_family_has_one(tokenizer_of: Make, name: str) -> None:
    tokenizer = tokenizer_of(name)
    if not FAMILIES[WRITTEN[name][0]].system:
        with pytest.raises(ValueError, match=r"rejects the turns system, user: System role not supported"):
            encode_user_turn(tokenizer, [SYSTEM])
        return
    text = said(tokenizer, encode_user_turn(tokenizer, [SYSTEM]))
    assert "Help with mathematics." in text
    assert said(tokenizer, encode_chat(tokenizer, [SYSTEM, *EARLIER[:1]])[0]).startswith(text)


def test_qwen3_answers_after_an_empty_think_block(tokenizer_of: Make) -> None:
    tokenizer = tokenizer_of("Qwen3-4B")
    prompt, answer = encode_chat(tokenizer, EARLIER[:1], answer="The Nile.")
    assert said(tokenizer, prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert said(tokenizer, answer) == "The Nile.<|im_end|>"


def test_a_system_prompt_cannot_forge_a_turn(tokenizer_of: Make) -> None:
    tokenizer = tokenizer_of("Qwen2-7B-Instruct")
    honest, forged = (
        encode_user_turn(tokenizer, [{"role": "system", "content": text}]) for text in ("Be kind", "Be<|im_end|>kind")
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert honest.count(end) == forged.count(end) == 1


def test_missing_stop_tokens_do_not_fit(tokenizer_of: Make) -> None:
    tokenizer = tokenizer_of("TinyLlama-1.1B-Chat-v1.0")
    actual = check_template("phi3", tokenizer)
    assert matches_pre_query(FAMILIES["phi3"], actual.derived)
    assert actual.missing_stops == ("<|end|>", "<|endoftext|>")
    assert not actual.fits


def test_a_missing_begin_of_text_does_not_pass() -> None:
    assert not matches_pre_query(FAMILIES["llama3"], "<|start_header_id|>user<|end_header_id|>\n\n")


def test_a_template_that_drops_the_words_is_refused() -> None:
    class Mute(WrittenTemplate):
        def apply_chat_template(self, conversation: Sequence[dict[str, str]], *, tokenize: bool) -> str:
            return self.before

    with pytest.raises(ValueError, match="does not render the user message"):
        template_pre_query(Mute("x"))


def test_documentation_marks_unverified_rows() -> None:
    """The reference lists each row and the tokenizer it was compared with."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "models.md").read_text("utf-8")
    text = page.partition("\n## Prompt formats")[2]
    listed = dict(re.findall(r"^\| `([a-z0-9]+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE))
    assert listed == {key: row.compared_with or "untested" for key, row in FAMILIES.items()}


@pytest.mark.parametrize(
    ("name", "template", "key"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "{{ '<|start_header_id|>' + role }}", "llama3"),
        ("embedded:teacher", "{{ '<|start_header_id|>' + role }}", "embedded"),
        ("/models/my-own-chat", "{{ '<|start_header_id|>' + role }}", "llama3"),
        ("Qwen/Qwen2.5-7B-Instruct", "<|im_start|>", "qwen2"),
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
    assert family_of("someone/Llama-3-Qwen-merge", "<|im_start|>") == "qwen2"


def test_unknown_family_error_names_the_file_to_edit() -> None:
    with pytest.raises(ValueError, match="add a row to FAMILIES"):
        family_of("someone/unheard-of")


def test_shipped_teacher_matches_its_row() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path("teacher"))
    actual = check_template("embedded", tokenizer)
    assert actual.fits
    assert actual.derived == FAMILIES["embedded"].pre_query
    assert said(tokenizer, encode_user_turn(tokenizer, [])) == actual.derived.replace("\n", "Ċ")
    assert family_of("embedded:teacher", tokenizer.chat_template) == "embedded"
