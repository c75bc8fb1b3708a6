import socket
import time
from pathlib import Path
from typing import Any

import pytest

from synth_assets.benchmarks import harness
from synth_assets.benchmarks.suites import SUITES
from synth_assets.embedded import model_path

SUITE = SUITES["world_choice"]
ITEMS = [item for item in SUITE.items() if item.split == "test"]
VIRTUAL_TOKENS = 5
Pair = tuple[Any, Any]


@pytest.fixture(scope="module")
def pair() -> Pair:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_path("base")
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


def logprob_alone(pair: Pair, prompt: str, choice: str, skip: int = 0) -> float:
    """Log-probability of the choice after the prompt, one unpadded sequence; `skip` virtual tokens stand before."""
    import torch

    model, tokenizer = pair
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    # lm-eval scores the white space that ends a context with the choice; it is the same for all choices
    whole = tokenizer.encode(chat + choice, add_special_tokens=False)
    start = len(tokenizer.encode(chat.rstrip(), add_special_tokens=False))
    with torch.no_grad():
        logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)[skip:]
    return sum(logprobs[place - 1, whole[place]].item() for place in range(start, len(whole)))


def test_batched_logprobs_equal_those_one_by_one(pair: Pair) -> None:
    found = harness.choose(pair, SUITE, ITEMS[:12], batch_size=8)
    for item, choice in zip(ITEMS, found, strict=False):
        alone = [logprob_alone(pair, item.prompt, text) for text in item.choices]
        assert choice.logprobs == pytest.approx(alone, abs=1e-3)
        assert choice.index == alone.index(max(alone))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT 0.21 asks for it
def test_prompt_tuning_is_scored_with_its_virtual_tokens(pair: Pair) -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model_path("base"), dtype="float32")
    adapter = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL_TOKENS)
    tuned = (get_peft_model(network, adapter).eval(), pair[1])
    found = harness.choose(tuned, SUITE, ITEMS[:6], batch_size=8)
    plain = harness.choose(pair, SUITE, ITEMS[:6], batch_size=8)
    for item, choice in zip(ITEMS, found, strict=False):
        alone = [logprob_alone(tuned, item.prompt, text, VIRTUAL_TOKENS) for text in item.choices]
        assert choice.logprobs == pytest.approx(alone, abs=1e-3)
    assert [c.logprobs for c in found] != [c.logprobs for c in plain]


def test_scores_are_those_of_lm_eval(pair: Pair, tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    items = ITEMS[:80]
    harness.write_task(tmp_path, SUITE, items)
    expected = lm_eval.simple_evaluate(
        model=HFLM(pretrained=pair[0], tokenizer=pair[1], batch_size=16),
        tasks=[SUITE.name],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    found = harness.choose(pair, SUITE, items, batch_size=16)
    scores = [SUITE.score(item, item.choices[c.index])["acc"] for item, c in zip(items, found, strict=True)]
    assert sum(scores) / len(scores) == expected["results"][SUITE.name]["acc,none"]
    assert [sample["acc"] for sample in expected["samples"][SUITE.name]] == scores


def test_order_and_batch_size_change_nothing(pair: Pair) -> None:
    items = ITEMS[:10]
    found = harness.choose(pair, SUITE, items, batch_size=16)
    turned = harness.choose(pair, SUITE, items[::-1], batch_size=3)
    assert [c.index for c in turned[::-1]] == [c.index for c in found]


def test_it_is_quiet_and_asks_no_hub(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection was attempted: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    harness.choose(pair, SUITE, ITEMS[:4], batch_size=4)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_four_hundred_items_take_seconds(pair: Pair) -> None:
    items = SUITE.items()[:400]
    started = time.process_time()
    harness.choose(pair, SUITE, items, batch_size=64)
    assert time.process_time() - started < 10  # measured: 2; threads and a busy machine count more


def test_version_is_recorded() -> None:
    assert harness.harness_version().startswith("lm-eval 0.")
