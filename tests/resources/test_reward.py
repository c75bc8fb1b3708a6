import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from resources.hardware import Hardware
from resources.inference import Inference
from resources.reward import REWARD_INPUT_FORMATS, ClassifierReward, RewardInputFormat, RewardModels
from synth_assets.embedded import model_path
from synth_assets.llm.chat_encoding import encode_chat
from synth_assets.llm.loading import load_tokenizer
from synth_assets.schemas.records import ModelRecord

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.modeling_outputs import SequenceClassifierOutput

PAIRS = [
    ("What is 2 plus 3?", "5"),
    ("Name a colour.", "Blue is a colour, and so are red and green, if you ask me."),
    ("Hi", ""),
    ("Say <|eot_id|>", "<|eot_id|>"),
]


@pytest.fixture(scope="module")
def tokenizer() -> "PreTrainedTokenizerBase":
    return load_tokenizer(model_path("teacher"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher's body with a score nobody trained."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "my-reward"
    source = model_path("teacher")
    network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype=torch.float32)
    network.save_pretrained(path)
    AutoTokenizer.from_pretrained(source).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def record(folder: Path) -> ModelRecord:
    return Inference(hardware=Hardware(tier="cpu", reward=str(folder))).resolve("reward")


class Recorder:
    """A network that gives each row its number of real tokens, and keeps what it was given."""

    def __init__(self, labels: int = 1) -> None:
        import torch
        from transformers import LlamaConfig

        self.config, self.device = LlamaConfig(num_labels=labels), torch.device("cpu")
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def eval(self) -> "Recorder":
        return self

    def __call__(self, input_ids: "torch.Tensor", attention_mask: "torch.Tensor") -> "SequenceClassifierOutput":
        from transformers.modeling_outputs import SequenceClassifierOutput

        self.seen.append((input_ids, attention_mask))
        return SequenceClassifierOutput(logits=attention_mask.sum(1, keepdim=True).float())


def reward_of(
    network: "Recorder | PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    form: RewardInputFormat,
    context_tokens: int = 256,
) -> ClassifierReward:
    return ClassifierReward(network, tokenizer, form, model="m", revision="r", context_tokens=context_tokens)


def as_pairs(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """A tokenizer that writes two segments as an encoder's does."""
    encoder = copy.deepcopy(tokenizer)
    backend: Any = encoder
    backend.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A <|eot_id|>",
        pair="<|begin_of_text|> $A <|eot_id|> $B <|eot_id|>",
        special_tokens=[("<|begin_of_text|>", 0), ("<|eot_id|>", backend.eos_token_id)],
    )
    return encoder


def test_the_chat_form_scores_the_rendered_chat(tokenizer: "PreTrainedTokenizerBase") -> None:
    scores = reward_of(Recorder(), tokenizer, RewardInputFormat("chat")).score(PAIRS)
    chats = [encode_chat(tokenizer, [{"role": "user", "content": q}], answer=a) for q, a in PAIRS]
    assert scores.dtype == np.float64
    assert scores.tolist() == [len(prompt) + len(answer) for prompt, answer in chats]


def test_turns_that_the_chat_template_refuses_have_no_reward(tokenizer: "PreTrainedTokenizerBase") -> None:
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    history = [{"role": "system", "content": "Be short."}]
    rewards = reward_of(Recorder(), strict, RewardInputFormat("chat")).score(PAIRS[:2], [history, []])
    assert np.isnan(rewards).tolist() == [True, False]


def test_the_pair_form_scores_two_segments(tokenizer: "PreTrainedTokenizerBase") -> None:
    """As deberta reads them: tokenizer(question, answer); a control token in the text stays text (fault 11)."""
    encoder = as_pairs(tokenizer)
    network = Recorder()
    reward = reward_of(network, encoder, RewardInputFormat("pair"), context_tokens=40)
    reward.score(PAIRS[:1])
    expected = [0, *encoder.encode(PAIRS[0][0], add_special_tokens=False), encoder.eos_token_id]
    expected += [*encoder.encode(PAIRS[0][1], add_special_tokens=False), encoder.eos_token_id]
    assert network.seen[0][0].tolist() == [expected]
    reward.score(PAIRS[3:])
    assert network.seen[1][0][0].tolist().count(encoder.eos_token_id) == 2
    assert reward.score([("Hi " * 30, "Ho " * 30)]).tolist() == [40]


def test_earlier_turns_are_read_before_the_instruction(tokenizer: "PreTrainedTokenizerBase") -> None:
    history = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Nile."}]
    pairs = [("And another?", "The Amazon."), ("Hi", "Ho")]
    chat = Recorder()
    scores = reward_of(chat, tokenizer, RewardInputFormat("chat")).score(pairs, [history, []])
    prompt, answer = encode_chat(tokenizer, [*history, {"role": "user", "content": pairs[0][0]}], answer=pairs[0][1])
    assert scores[0] == len(prompt) + len(answer)
    assert scores[1] == reward_of(Recorder(), tokenizer, RewardInputFormat("chat")).score(pairs[1:])[0]
    encoder, two = as_pairs(tokenizer), Recorder()
    reward_of(two, encoder, RewardInputFormat("pair")).score(pairs[:1], [history])
    said = encoder.decode(two.seen[0][0][0])
    assert "Name a river.\n\nThe Nile.\n\nAnd another?<|eot_id|>The Amazon." in said


def test_scores_are_in_order_and_do_not_depend_on_the_batch(record: ModelRecord) -> None:
    reward = RewardModels(hardware=Hardware(tier="cpu")).load(record)
    many = [(f"{question} {number}", answer * (number % 3)) for number in range(40) for question, answer in PAIRS]
    together = reward.score(many)
    alone = np.array([reward.score([pair])[0] for pair in many[:12]])
    assert np.isfinite(together).all()
    assert together.shape == (160,)
    assert len(np.unique(together.round(4))) > 80
    np.testing.assert_allclose(together[:12], alone, atol=1e-4)
    assert reward.score(many).tobytes() == together.tobytes()
    assert (reward.model, reward.revision) == ("my-reward", record.revision)


def test_a_deberta_is_loaded_and_read_in_pairs(tokenizer: "PreTrainedTokenizerBase", tmp_path: Path) -> None:
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    kind: dict[str, Any] = {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "type_vocab_size": 0,
        "num_labels": 1,
    }
    kind["initializer_range"] = 0.5
    torch.manual_seed(1)
    network = DebertaV2ForSequenceClassification(DebertaV2Config(vocab_size=len(tokenizer), **sizes, **kind))
    network.save_pretrained(tmp_path)
    as_pairs(tokenizer).save_pretrained(tmp_path)
    hardware = Hardware(tier="cpu", reward=str(tmp_path))
    record = Inference(hardware=hardware).resolve("reward")
    assert (record.family, record.context_tokens) == ("deberta-v2", 512)
    rewards = RewardModels(hardware=hardware).load(record).score(PAIRS)
    ids = as_pairs(tokenizer)(*PAIRS[1], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        alone = network.eval()(input_ids=ids).logits.item()
    assert rewards[1] == pytest.approx(alone, abs=1e-5)
    assert len(set(rewards.round(5))) == len(PAIRS)


def test_no_pairs_give_no_scores(record: ModelRecord) -> None:
    assert RewardModels(hardware=Hardware(tier="cpu")).load(record).score([]).tolist() == []


def test_nan_of_the_model_is_returned(
    folder: Path, record: ModelRecord, tokenizer: "PreTrainedTokenizerBase"
) -> None:  # fault 18
    import torch
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        network.score.weight.fill_(torch.nan)
    assert np.isnan(reward_of(network, tokenizer, RewardInputFormat("chat")).score(PAIRS)).all()


def test_model_with_several_labels_raises(tokenizer: "PreTrainedTokenizerBase") -> None:
    with pytest.raises(ValueError, match="a reward model must have one label, m has 3"):
        reward_of(Recorder(labels=3), tokenizer, RewardInputFormat("chat"))


def test_unknown_architecture_raises(record: ModelRecord) -> None:
    with pytest.raises(
        ValueError, match=r"add a row to REWARD_INPUT_FORMATS in resources/reward\.py; known are deberta-v2, llama"
    ):
        RewardModels(hardware=Hardware(tier="cpu")).load(replace(record, family="mamba"))


def test_deberta_reads_pairs_and_chat_models_chats() -> None:
    assert REWARD_INPUT_FORMATS["deberta-v2"].template == "pair"
    assert REWARD_INPUT_FORMATS["llama"].template == "chat"
