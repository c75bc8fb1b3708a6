import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.llm.loading import load_adapter
from synth_assets.training.data import encode_rows
from synth_assets.training.difficulty import row_difficulty
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.logprobs import answer_logprobs
from synth_assets.training.prompt_tuning import train_prompt
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import LoraSpec, PromptTuningSpec
from synth_assets.training.validation import greedy_answers, rouge_l, text_scores, token_scores, word_f1

pytestmark = pytest.mark.integration

QUICK = LoraSpec(rank=4, alpha=8, learning_rate=5e-3, epochs=2.0, batch_size=8)


def test_f1_by_hand() -> None:
    # "the" and "cat" of three words found, of four wanted: precision 2/3, recall 1/2
    assert word_f1("The cat sleeps", "the black cat sits") == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert word_f1("", "") == 1.0
    assert word_f1("", "a") == 0.0


def test_text_scores_by_hand() -> None:
    scores = text_scores(["a b c d ", "x"], ["a b c d", "y"])
    assert scores == {"exact_match": 0.5, "f1": 0.5, "bleu": pytest.approx(scores["bleu"]), "rouge_l": 0.5}
    assert text_scores(["a b c d e"], ["a b c d e"])["bleu"] == pytest.approx(1.0)
    assert text_scores(["Привет мир"], ["Привет мир"])["rouge_l"] == 1.0  # every script counts
    # longest common subsequence "a c" of 3 and 2 words: precision 2/3, recall 1
    assert text_scores(["a b c"], ["a c"])["rouge_l"] == pytest.approx(0.8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rouge_l_is_that_of_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    for answer, reference in [("a b c d", "b d a c"), ("x y", "a b"), ("one two two", "two one two two"), ("a", "a")]:
        assert rouge_l(answer, reference) == pytest.approx(scorer.score(reference, answer)["rougeL"].fmeasure)


def test_token_scores_are_over_answer_tokens(
    load: Callable[[], LoadedBase], lora_folder: Path, rows: pl.DataFrame
) -> None:
    model, tokenizer = load()
    adapted = load_adapter(model, lora_folder)
    examples = encode_rows(rows, tokenizer, 256)
    scores = token_scores(adapted, examples, 8)
    nats = -sum(answer_logprobs(adapted, examples, batch_size=4)) / sum(len(example.answer) for example in examples)
    assert scores["loss"] == pytest.approx(nats, rel=1e-4)
    assert scores["perplexity"] == pytest.approx(math.exp(nats), rel=1e-4)
    assert 0 < scores["token_accuracy"] <= 1


def test_a_training_scores_its_validation_rows(lora: Trained, rows: pl.DataFrame) -> None:
    scores = lora.outcome.validation
    assert scores["n"] == 4
    assert scores.keys() == {
        "n", "loss", "perplexity", "token_accuracy", "exact_match", "f1", "bleu", "rouge_l",
    }  # fmt: skip
    assert 0 < scores["f1"] <= 1


def test_answers_do_not_depend_on_their_neighbours(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup, tmp_path: Path
) -> None:
    spec = PromptTuningSpec(learning_rate=0.05, epochs=1.0, virtual_tokens=4, scored_rows=0)
    trained = train_prompt(load(), rows, spec, setup)
    assert trained.outcome.validation == {}
    trained.save(tmp_path)
    model, tokenizer = load()
    adapted = load_adapter(model, tmp_path).eval()
    examples = encode_rows(rows.head(6), tokenizer, 256)
    assert len({len(example.prompt) for example in examples}) > 1
    together = greedy_answers(adapted, tokenizer, examples, 6)
    alone = [answer for example in examples for answer in greedy_answers(adapted, tokenizer, [example], 1)]
    assert together == alone


def test_the_weights_are_those_of_the_best_validation(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup
) -> None:
    # a rate that is far too high: the loss on validation rows has its lowest value before the end
    spec = replace(QUICK, learning_rate=0.05, schedule="constant", validate_every=1, epochs=4.0, scored_rows=4)
    outcome = train_lora(load(), rows, spec, setup).outcome
    validated = {point["step"]: point["eval_loss"] for point in outcome.curve if "eval_loss" in point}
    assert outcome.best_step == min(validated, key=lambda step: validated[step]) < outcome.steps
    assert outcome.validation["loss"] == pytest.approx(min(validated.values()), rel=0.1)


def test_patience_ends_a_training(load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup) -> None:
    spec = replace(QUICK, epochs=4.0, validate_every=1, stop_patience=2, stop_threshold=100.0, scored_rows=0)
    outcome = train_lora(load(), rows, spec, setup).outcome
    assert outcome.steps == 3  # the first is an improvement, two are not by 100 nats
    assert "stopped at step 3 of 16" in outcome.events[-1]


@pytest.mark.parametrize("difficulty", ["length", "base_perplexity"])
def test_difficulty_is_a_number_for_each_row(
    difficulty: str, load: Callable[[], LoadedBase], lora_folder: Path, rows: pl.DataFrame
) -> None:
    model, tokenizer = load()
    spec = replace(QUICK, order="curriculum", difficulty=difficulty)  # pyright: ignore[reportArgumentType]
    examples = encode_rows(rows, tokenizer, 256)
    actual = row_difficulty(spec, (load_adapter(model, lora_folder), tokenizer), examples, rows)
    assert len(actual) == rows.height
    assert len(set(actual)) > 1


def test_a_clear_preference_is_easy_and_a_missing_one_refused(load: Callable[[], LoadedBase]) -> None:
    spec = replace(QUICK, order="curriculum", difficulty="reward_margin")
    policy = (None, None)
    rows = pl.DataFrame({"margin": [0.5, 2.0]})
    assert row_difficulty(spec, policy, [], rows) == [-0.5, -2.0]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TrainingError, match="needs a finite number in column margin"):
        row_difficulty(spec, policy, [], rows.with_columns(margin=None))  # pyright: ignore[reportArgumentType]
    assert row_difficulty(replace(QUICK, order="random"), policy, [], rows) == []  # pyright: ignore[reportArgumentType]


def test_a_training_in_another_order_and_budget(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup
) -> None:
    spec = replace(QUICK, order="curriculum", batch_tokens=200, scored_rows=0)
    outcome = train_lora(load(), rows, spec, setup).outcome
    assert outcome.final_loss < outcome.curve[0]["loss"]
    assert outcome.fill_rate > 0.9


def test_packing_raises_without_attention_that_separates_rows(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup
) -> None:
    with pytest.raises(TrainingError, match="packing needs flash_attention_2"):
        train_lora(load(), rows, replace(QUICK, order="packed"), setup)
