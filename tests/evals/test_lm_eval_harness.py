import json
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synth_assets.embedded import model_path
from synth_assets.evals import lm_eval_harness
from synth_assets.evals.suite import Item, Suite
from synth_assets.evals.suites import SUITES
from synth_assets.storage.blocks import in_blocks

pytestmark = pytest.mark.integration

SUITE = SUITES["world_choice"]
ITEMS = [item for item in SUITE.items() if item.split == "test"]
VIRTUAL_TOKENS = 5
Pair = tuple[Any, Any]


@pytest.fixture(scope="module")
def pair() -> Pair:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_path("base")
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


def logprob(pair: Pair, context: str, continuation: str, skip: int = 0) -> float:
    """Log-probability of the continuation, one unpadded sequence; preceded by `skip` virtual tokens."""
    import torch

    model, tokenizer = pair
    # lm-eval counts the white space that ends a context to the choice; it is the same for all choices
    whole = tokenizer.encode(context + continuation, add_special_tokens=False)
    start = len(tokenizer.encode(context.rstrip(), add_special_tokens=False))
    with torch.no_grad():
        logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)[skip:]
    return sum(logprobs[place - 1, whole[place]].item() for place in range(start, len(whole)))


def logprob_in_chat(pair: Pair, prompt: str, choice: str, skip: int = 0) -> float:
    turns = [{"role": "user", "content": prompt}]
    return logprob(pair, pair[1].apply_chat_template(turns, tokenize=False, add_generation_prompt=True), choice, skip)


def test_batched_logprobs_equal_unbatched_ones(pair: Pair) -> None:
    found = lm_eval_harness.score_choices(pair, SUITE, ITEMS[:12], batch_size=8)
    for item, choice in zip(ITEMS, found, strict=False):
        alone = [logprob_in_chat(pair, item.prompt, text) for text in item.choices]
        assert choice.logprobs == pytest.approx(alone, abs=1e-3)
        assert choice.index == alone.index(max(alone))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT 0.21 asks for it
def test_prompt_tuning_is_scored_with_its_virtual_tokens(pair: Pair) -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model_path("base"), dtype="float32")
    adapter = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL_TOKENS)
    tuned = (get_peft_model(network, adapter).eval(), pair[1])
    found = lm_eval_harness.score_choices(tuned, SUITE, ITEMS[:6], batch_size=8)
    plain = lm_eval_harness.score_choices(pair, SUITE, ITEMS[:6], batch_size=8)
    for item, choice in zip(ITEMS, found, strict=False):
        alone = [logprob_in_chat(tuned, item.prompt, text, VIRTUAL_TOKENS) for text in item.choices]
        assert choice.logprobs == pytest.approx(alone, abs=1e-3)
    assert [c.logprobs for c in found] != [c.logprobs for c in plain]


def accuracy(pair: Pair, items: list[Item], suite: Suite = SUITE) -> float:
    found = lm_eval_harness.score_choices(pair, suite, items, batch_size=16)
    scores = [suite.score(item, item.choices[c.index])["acc"] or 0.0 for item, c in zip(items, found, strict=True)]
    return sum(scores) / len(scores)


def test_scores_are_those_of_the_lm_eval_command_line(pair: Pair, tmp_path: Path) -> None:
    items = ITEMS[:100]
    lm_eval_harness.write_task(tmp_path, SUITE, items)
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", SUITE.name, "--include_path", str(tmp_path)]
    command += ["--model_args", f"pretrained={model_path('base')},dtype=float32", "--apply_chat_template"]
    command += ["--device", "cpu", "--batch_size", "16", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = (tmp_path / "out").rglob("results_*.json")
    assert accuracy(pair, items) == json.loads(report.read_text())["results"][SUITE.name]["acc,none"]


def test_raw_text_with_lettered_choices_is_scored_too(pair: Pair) -> None:
    letters = ("A", "B", "C", "D")
    suite = replace(SUITE, name="lettered", chat=False, delimiter=" ")
    items = [
        replace(
            item,
            suite="lettered",
            prompt="\n".join([item.prompt, *map("{}. {}".format, letters, item.choices), "Answer:"]),
            choices=letters,
        )
        for item in ITEMS[:10]
    ]
    for item, choice in zip(items, lm_eval_harness.score_choices(pair, suite, items, batch_size=8), strict=True):
        alone = [logprob(pair, item.prompt, f" {letter}") for letter in letters]
        assert choice.logprobs == pytest.approx(alone, abs=1e-3)


def test_scores_do_not_depend_on_order_and_batch_size(pair: Pair) -> None:
    items = ITEMS[:10]
    found = lm_eval_harness.score_choices(pair, SUITE, items, batch_size=16)
    turned = lm_eval_harness.score_choices(pair, SUITE, items[::-1], batch_size=3)
    assert [c.index for c in turned[::-1]] == [c.index for c in found]


def test_scoring_is_silent_and_offline(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection was attempted: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    lm_eval_harness.score_choices(pair, SUITE, ITEMS[:4], batch_size=4)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_thousand_items_are_scored_in_seconds(pair: Pair) -> None:
    items = [replace(item, item_id=str(n)) for n, item in enumerate((*SUITE.items(), *SUITE.items())[:1_000])]
    started = time.process_time()
    for block in in_blocks(items):  # as scoring does
        lm_eval_harness.score_choices(pair, SUITE, block, batch_size=64)
    assert time.process_time() - started < 15  # measured: 10 on a busy machine


def test_version_is_recorded() -> None:
    assert lm_eval_harness.harness_version().startswith("lm-eval 0.")
