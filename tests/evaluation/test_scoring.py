from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.embedded import model_path
from synth_assets.evals.scoring import (
    EvaluatedModel,
    EvaluationSpec,
    choose_items,
    metrics,
    score_model,
    sealed_scores,
)
from synth_assets.evals.suite import item_table, items_of
from synth_assets.evals.suites import SUITES
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.schemas.tables import ITEM_SCORES
from synth_assets.stats.intervals import wilson_interval
from synth_assets.storage.manifests import content_hash

ITEMS = item_table([SUITES["world_instructions"]])
SPEC = EvaluationSpec(validation_items=30, test_items=100)
ENGINES = {"base": "fake 1", "lora_adapter": "fake 1"}
GREETING = "Hello! How can I help you?"


@dataclass
class FakeGenerator:
    """Answers every prompt with one text and counts what it was asked."""

    answer: str = GREETING
    model: str = "fake"
    revision: str = "1"
    engine: str = "fake 1"
    context_tokens: int = 256
    asked: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        return list(messages[-1]["content"].encode())

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        return self.encode_chat(messages)

    def encode_template(self, template: str) -> list[int]:
        return list(template.encode())

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        assert len(prompts) == len(seeds) <= 64
        self.asked += [bytes(prompt).decode() for prompt in prompts]
        self.seeds += seeds
        return [Completion(self.answer, "stop", len(prompt), 7) for prompt in prompts]


def no_pair() -> tuple[object, object]:
    raise AssertionError("generated suites need no harness")


def subject(generator: FakeGenerator, name: str = "lora_adapter", weights: str = "w1") -> EvaluatedModel:
    return EvaluatedModel(name, f"fingerprint of {name}", weights, "fake 1", lambda: generator, no_pair)


def score(generator: FakeGenerator, folder: Path, spec: EvaluationSpec = SPEC, **changes: str) -> pl.DataFrame:
    return score_model(subject(generator, **changes), ITEMS, spec, folder=folder, progress=lambda line: None)


def test_each_item_is_scored_once_on_all_metrics(tmp_path: Path) -> None:
    generator = FakeGenerator()
    scores = score(generator, tmp_path)
    assert scores.schema == ITEM_SCORES
    assert scores.group_by("split", "metric").len().sort("split", "metric").rows() == [
        ("test", "lenient", 100),
        ("test", "strict", 100),
        ("validation", "lenient", 30),
        ("validation", "strict", 30),
    ]
    assert len(generator.asked) == len(set(generator.asked)) == 130
    assert len(set(generator.seeds)) == 130
    assert scores["fingerprint"].unique().to_list() == ["fingerprint of lora_adapter"]


def test_responses_of_an_unchanged_model_are_reused(tmp_path: Path) -> None:
    first = score(FakeGenerator(), tmp_path)

    def unloadable() -> FakeGenerator:
        raise AssertionError("everything was answered before: the model need not be loaded")

    again = replace(subject(FakeGenerator()), generator=unloadable)
    assert score_model(again, ITEMS, SPEC, folder=tmp_path, progress=lambda line: None).equals(first)


@pytest.mark.parametrize(
    ("spec", "changes", "asked"),
    [
        (SPEC, {"name": "dpo_adapter"}, 0),  # the same weights under another name
        (SPEC, {"weights": "w2"}, 130),
        (replace(SPEC, temperature=0.7), {}, 130),
        (replace(SPEC, max_tokens=9), {}, 130),
        (replace(SPEC, batch_size=1), {}, 0),  # of the harness only
    ],
)
def test_changes_that_make_responses_stale(
    tmp_path: Path, spec: EvaluationSpec, changes: dict[str, str], asked: int
) -> None:
    score(FakeGenerator(), tmp_path)
    generator = FakeGenerator()
    score(generator, tmp_path, spec, **changes)
    assert len(generator.asked) == asked


def test_a_damaged_shard_is_answered_again_and_alone(tmp_path: Path) -> None:
    first = score(FakeGenerator(), tmp_path)
    shard = sorted(tmp_path.glob("*.parquet"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    generator = FakeGenerator()
    assert score(generator, tmp_path).equals(first)
    assert 0 < len(generator.asked) <= 64


def test_null_models_score_near_zero(tmp_path: Path) -> None:
    everything = EvaluationSpec()
    for number, answer in enumerate(("", "I do not know.")):
        scores = score(FakeGenerator(answer), tmp_path, everything, weights=f"null {number}")
        (strict,) = [
            m for m in metrics(scores, engines=ENGINES, data_hash="d") if (m.split, m.metric) == ("test", "strict")
        ]
        assert strict.value <= 0.02
        assert strict.n == 680


def test_limits_take_the_same_items_whatever_the_order() -> None:
    chosen = choose_items(ITEMS, SPEC)
    turned = choose_items(ITEMS.reverse(), SPEC)
    assert set(chosen["item_id"]) == set(turned["item_id"])
    assert chosen.group_by("split").len().sort("split").rows() == [("test", 100), ("validation", 30)]
    assert choose_items(ITEMS, EvaluationSpec()).equals(ITEMS.filter(pl.col("split") != "sealed"))
    more = choose_items(ITEMS, replace(SPEC, test_items=101))
    assert set(chosen["item_id"]) < set(more["item_id"])
    with pytest.raises(ValueError, match="empty"):
        choose_items(ITEMS.clear(), SPEC)


def test_validation_items_are_those_of_the_deciding_suite() -> None:
    both = item_table([SUITES["world_instructions"], SUITES["world_choice"]])
    chosen = choose_items(both, EvaluationSpec(validation_items=10))
    assert chosen.group_by("suite", "split").len().sort("suite", "split").rows() == [
        ("world_choice", "test", 308),
        ("world_instructions", "test", 680),
        ("world_instructions", "validation", 10),
    ]


def test_metrics_match_hand_arithmetic_and_carry_their_evidence(tmp_path: Path) -> None:
    scores = score(FakeGenerator(), tmp_path, name="base")
    ids = items_of(choose_items(ITEMS.filter(split="test"), SPEC))
    # 25 right, 70 wrong, 5 do not apply: n = 95
    given = {item.item_id: 1.0 if n < 25 else 0.0 if n < 95 else None for n, item in enumerate(ids)}
    scores = scores.filter(split="test", metric="strict").with_columns(
        pl.col("item_id").replace_strict(given, return_dtype=pl.Float64).alias("score")
    )
    (found,) = metrics(scores, engines=ENGINES, data_hash="d")
    assert (found.model, found.suite, found.split, found.metric) == ("base", "world_instructions", "test", "strict")
    assert (found.value, found.n) == (25 / 95, 95)
    assert (found.ci_low, found.ci_high) == wilson_interval(25, 95)
    assert (found.interval, found.kind, found.shots) == ("wilson 0.95", "measured", 0)
    assert (found.harness, found.data_hash) == ("verifier on fake 1", "d")
    assert found.items_sha256 == content_hash(scores)


def test_a_metric_that_applies_to_no_item_is_not_reported(tmp_path: Path) -> None:
    scores = score(FakeGenerator(), tmp_path)
    none = pl.when(pl.col("metric") == "lenient").then(None).otherwise(pl.col("score")).alias("score")
    assert {m.metric for m in metrics(scores.with_columns(none), engines=ENGINES, data_hash="d")} == {"strict"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"max_tokens": 0},
        {"batch_size": 0},
        {"validation_items": -1},
        {"test_items": -1},
    ],
)
def test_a_spec_that_cannot_be_run_names_the_field(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EvaluationSpec(**wrong)


def test_sealed_items_are_scored_only_by_a_promotion(tmp_path: Path) -> None:
    table = item_table([SUITES["instruction_following"]])
    assert set(table["split"]) == {"validation", "test", "sealed"}
    everyday = FakeGenerator()
    score_model(subject(everyday), table, EvaluationSpec(), folder=tmp_path, progress=lambda line: None)
    sealed = set(table.filter(split="sealed")["prompt"])
    assert len(sealed) == 180
    assert not sealed & set(everyday.asked)
    one, other = FakeGenerator(), FakeGenerator()
    subjects = [subject(one, "base", "w1"), subject(other, "lora_adapter", "w2")]
    limited = EvaluationSpec(test_items=1)

    def sealed_of(examined: EvaluatedModel, items: pl.DataFrame) -> pl.DataFrame:
        return sealed_scores(examined, items, limited, folder=tmp_path, progress=lambda line: None)

    scores = pl.concat(sealed_of(examined, table) for examined in subjects)
    assert set(one.asked) == set(other.asked) == sealed
    assert scores.group_by("model", "split", maintain_order=True).len().rows() == [
        ("base", "sealed", 360),
        ("lora_adapter", "sealed", 360),
    ]
    assert sealed_of(subjects[0], ITEMS.filter(pl.col("split") != "sealed")).is_empty()


def test_scores_of_the_harness_are_lm_evals_own_and_made_once(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "files" / "mmlu"
    folder.mkdir(parents=True)
    (folder / "nutrition_test.csv").write_text("Which of these is a fruit?,iron,an apple,a chair,a cloud,B\n")
    table = item_table([SUITES["mmlu"]], tmp_path / "files")
    loaded: list[str] = []

    def pair() -> tuple[object, object]:
        loaded.append("base")
        path = model_path("base")
        return AutoModelForCausalLM.from_pretrained(path, dtype="float32"), AutoTokenizer.from_pretrained(path)

    examined = EvaluatedModel("base", "f", "w", "fake 1", FakeGenerator, pair)
    first = score_model(examined, table, SPEC, folder=tmp_path / "shards", progress=lambda line: None)
    assert first.schema == ITEM_SCORES
    assert first.select("suite", "metric", "finish_reason").rows() == [("mmlu", "acc", None)]
    assert first["response"][0] in "ABCD"
    assert first["score"][0] == float(first["response"][0] == "B")
    again = score_model(examined, table, SPEC, folder=tmp_path / "shards", progress=lambda line: None)
    assert again.equals(first)
    assert loaded == ["base"]
    (metric,) = metrics(first, engines=ENGINES, data_hash="d")
    assert metric.harness.startswith("lm-eval 0.")
