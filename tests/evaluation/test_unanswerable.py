"""Items that a model cannot take: scored by nobody, counted everywhere, and no way to win."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from jinja2 import TemplateError

from checks.evaluation import scores_are_finite_with_n, suites_can_be_answered
from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.embedded import model_path
from synth_assets.evals import lm_eval_harness as harness
from synth_assets.evals.comparison import compare, paired_tests
from synth_assets.evals.conversations import converse, why_unanswerable
from synth_assets.evals.guards import regression_guards
from synth_assets.evals.scoring import EvaluatedModel, EvaluationSpec, metrics, score_model
from synth_assets.evals.suite import Item, item_table
from synth_assets.evals.suites import SUITES
from synth_assets.evals.unanswerable import count_unanswerable, shares
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.reporting.document import markdown
from synth_assets.schemas.records import AdapterRecord, Comparison, UnanswerableItems
from synth_assets.schemas.serialization import from_json, to_json
from synth_assets.stages.evaluation.profiles import profiles
from synth_assets.stages.evaluation.report import sections, summary
from synth_assets.stages.evaluation.report_data import gather
from synth_assets.stages.evaluation.scoreboard import markdown_table, paired_tests_table, suite_table

Scored = Callable[[Mapping[str, Sequence[float | None]]], pl.DataFrame]
SUITE, METRIC = "world_instructions", "strict"
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=8)
REPLY = "x" * 10


@dataclass
class Talker:
    """A model of bytes with a context of 60; its template takes no word in capitals."""

    context_tokens: int = 60
    model: str = "talker"
    revision: str = "1"
    engine: str = "fake 1"
    asked: list[str] = field(default_factory=list)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        text = "|".join(message["content"] for message in messages)
        if text.isupper():
            raise TemplateError("shouting is not supported")
        return list(text.encode())

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        return self.encode_chat(messages)

    def encode_template(self, template: str) -> list[int]:
        return list(template.encode())

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        assert all(0 < len(prompt) < self.context_tokens for prompt in prompts)
        self.asked += [bytes(prompt).decode() for prompt in prompts]
        return [Completion(REPLY, "stop", len(prompt), len(REPLY)) for prompt in prompts]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["a" * 59], ""),
        (["a" * 60], "context_exceeded"),
        (["a" * 30, "b" * 26], ""),  # with one character as a reply: 30 + 1 + 1 + 1 + 26 = 59
        (["a" * 30, "b" * 27], "context_exceeded"),
        (["HELLO"], "template_refused"),
    ],
)
def test_whether_a_conversation_can_be_taken_is_a_property_of_its_turns(said: list[str], reason: str) -> None:
    assert why_unanswerable(Talker(), said) == reason


def test_a_model_that_fills_its_context_gives_empty_replies_and_is_scored_on_them() -> None:
    talker = Talker()
    (replies,) = converse(talker, [["a" * 20, "b" * 20, "c" * 10]], [1], GREEDY)
    # 20 + 1 + 10 + 1 + 20 = 52 fit; with the second reply and the third turn there are 74
    assert not isinstance(replies, str)
    assert [(reply.text, reply.finish_reason) for reply in replies] == [
        (REPLY, "stop"),
        (REPLY, "stop"),
        ("", "length"),
    ]
    assert len(talker.asked) == 2


def test_one_long_item_does_not_affect_the_others() -> None:
    talker = Talker()
    outcomes = converse(talker, [["a" * 99], ["short"], ["HELLO"], ["one", "two"]], [1, 2, 3, 4], GREEDY)
    assert [one if isinstance(one, str) else len(one) for one in outcomes] == [
        "context_exceeded",
        1,
        "template_refused",
        2,
    ]
    assert talker.asked == ["short", "one", f"one|{REPLY}|two"]
    assert converse(talker, [["a" * 99]], [1], GREEDY) == ["context_exceeded"]


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_path("base")
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


def long_and_short(suite: str, **changes: Any) -> list[Item]:  # noqa: ANN401
    item = Item(f"{suite}/short", suite, "test", SUITES[suite].kind, "Where is it?", "0", "c", ("here", "there"))
    item = replace(item, **changes)
    return [replace(item, item_id=f"{suite}/long", prompt="word " * 400), item]


def test_a_choice_whose_prompt_is_longer_than_the_context_is_left_out_and_not_cut(base: tuple[Any, Any]) -> None:
    long, short = harness.score_choices(base, SUITES["world_choice"], long_and_short("world_choice"), batch_size=2)
    assert long == "context_exceeded"
    assert isinstance(short, harness.Choice)
    items = long_and_short("world_choice")[1:]
    exact = [replace(items[0], item_id=str(n), prompt="a " * n) for n in range(220, 262, 3)]
    found = harness.score_choices(base, SUITES["world_choice"], exact, batch_size=8)
    tokens = [len(base[1].apply_chat_template(chat(item), add_generation_prompt=True)["input_ids"]) for item in exact]
    longest = max(len(base[1].encode(text, add_special_tokens=False)) for text in items[0].choices)
    # the last token of a choice is not read
    assert [isinstance(one, str) for one in found] == [length + longest - 1 > 256 for length in tokens]
    assert len({isinstance(one, str) for one in found}) == 2


def chat(item: Item) -> list[dict[str, str]]:
    return [{"role": "user", "content": item.prompt}]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT 0.21 asks for it
def test_virtual_tokens_take_their_part_of_the_context(base: tuple[Any, Any]) -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model_path("base"), dtype="float32")
    tuned = get_peft_model(network, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=40)).eval()
    (item,) = long_and_short("world_choice")[1:]
    near = replace(item, prompt="word " * 215)
    assert isinstance(harness.score_choices(base, SUITES["world_choice"], [near], batch_size=1)[0], harness.Choice)
    assert harness.score_choices((tuned, base[1]), SUITES["world_choice"], [near], batch_size=1) == ["context_exceeded"]


@pytest.mark.parametrize("max_tokens", [16, 512])  # the second is more than the whole context
def test_lm_eval_generation_gets_the_remaining_context(base: tuple[Any, Any], max_tokens: int) -> None:
    document = '{"question": "%s", "answer": "#### 7"}'
    items = [
        replace(item, answer=document % item.prompt)
        for item in (
            *long_and_short("gsm8k"),
            replace(long_and_short("gsm8k")[1], item_id="near", prompt="word " * 200),
        )
    ]
    long, short, near = harness.run_task(base, SUITES["gsm8k"], items, batch_size=2, max_tokens=max_tokens)
    assert long == "context_exceeded"
    assert isinstance(short, harness.Measurement)
    assert isinstance(near, harness.Measurement)


def test_items_that_the_chat_template_refuses_are_left_out(base: tuple[Any, Any]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path("base"))
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'word' in m['content'] %}{{ raise_exception('no words') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    found = harness.score_choices(
        (base[0], tokenizer), SUITES["world_choice"], long_and_short("world_choice"), batch_size=2
    )
    assert found[0] == "template_refused"
    assert isinstance(found[1], harness.Choice)


def test_agent_scenarios_run_on_the_shipped_base_and_count_items_left_out(tmp_path: Path) -> None:
    inference = Inference(hardware=Hardware(tier="cpu"))
    record = inference.resolve("base")
    suite = SUITES["agent_scenarios"]
    subject = EvaluatedModel(
        "base", "f", "w", "fake 1", lambda: inference.generator(record), lambda: inference.load_base(record)
    )
    lines: list[str] = []
    spec = EvaluationSpec(max_tokens=8)
    scores = score_model(subject, item_table([suite]), spec, folder=tmp_path, progress=lines.append)
    assert scores["item_id"].n_unique() == 50
    (counted,) = count_unanswerable(scores)
    assert (counted.suite, counted.reason, counted.asked) == ("agent_scenarios", "context_exceeded", 50)
    assert 0 < counted.items < 50
    assert any(f"{counted.items} of 50 test items of agent_scenarios are longer than its context" in s for s in lines)
    (solved,) = (m for m in metrics(scores, engines={"base": "e"}, data_hash="d") if m.metric == "solved")
    assert (solved.n, solved.unanswerable) == (50 - counted.items, counted.items)
    skills = [m for m in metrics(scores, engines={"base": "e"}, data_hash="d") if m.metric != "solved"]
    assert sum(m.unanswerable for m in skills) <= counted.items, "an item is counted for the metrics that apply to it"
    again = score_model(subject, item_table([suite]), spec, folder=tmp_path, progress=lambda _: None)
    assert again.equals(scores)


def without(scores: pl.DataFrame, model: str, items: Sequence[str], split: str = "test") -> pl.DataFrame:
    """The scores with these items, numbered within the split, not answerable by a model."""
    left_out = (pl.col("model") == model) & (pl.col("split") == split) & pl.col("item_id").is_in(list(items))
    return scores.with_columns(
        score=pl.when(left_out).then(None).otherwise(pl.col("score")),
        response=pl.when(left_out).then(pl.lit("")).otherwise(pl.col("response")),
        finish_reason=pl.when(left_out).then(pl.lit("context_exceeded")).otherwise(pl.col("finish_reason")),
    )


def ids(scores: pl.DataFrame, places: Sequence[int], split: str = "test") -> list[str]:
    asked = scores.filter(split=split)["item_id"].unique(maintain_order=True)
    return [asked[place] for place in places]


def test_both_sides_of_a_paired_test_leave_the_item_out(scored: Scored) -> None:
    scores = scored({"base": [1, 0, 0, 0, 0, 0], "a": [0, 1, 1, 1, 1, 0]})
    (test,) = paired_tests(without(scores, "a", ids(scores, [0])), [("base", "a")], SUITE, METRIC)
    # the item that only the base had right is gone: 4 only a's of 5
    assert (test.n, test.left_out, test.only_first, test.only_second, test.difference) == (5, 1, 0, 4, 0.8)
    (test,) = paired_tests(without(scores, "base", ids(scores, [1, 5])), [("base", "a")], SUITE, METRIC)
    assert (test.n, test.left_out, test.only_first, test.only_second) == (4, 2, 1, 3)
    nothing = without(scores, "a", ids(scores, range(6)))
    assert paired_tests(nothing, [("base", "a")], SUITE, METRIC) == []


def test_an_adapter_does_not_become_the_candidate_by_answering_less(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    n = 40
    right = {"base": 5, "prompt_tuning_adapter": 20, "lora_adapter": 21, "rejection_sampling_adapter": 10}
    right |= {"dpo_adapter": 10, "dpo_control_adapter": 10}
    scores = scored({name: [0.0] * (n - count) + [1.0] * count for name, count in right.items()})
    hard = ids(scores, [0, 1], "validation")  # which it has wrong
    easier = without(scores, "prompt_tuning_adapter", hard, "validation")
    # its mean over 38 items, 20/38 = .526, is above 21/40 = .525; on the same 38 items it is not
    assert compare(built(easier), easier, items, adapters).candidate == "lora_adapter"
    most = without(scores, "lora_adapter", ids(scores, [0, 1, 2], "validation"), "validation")  # 7.5 %: too many
    assert compare(built(most), most, items, adapters).candidate == "prompt_tuning_adapter"
    nothing = scores
    for name in right:
        nothing = without(nothing, name, ids(scores, range(n), "validation"), "validation")
    assert compare(built(nothing), nothing, items, adapters).candidate == ""


def built(scores: pl.DataFrame) -> list[Any]:
    return metrics(scores, engines=dict.fromkeys(scores["model"].unique(), "fake 1"), data_hash="d")


@pytest.mark.parametrize(("left_out", "verdict"), [(0, "held"), (5, "held"), (6, "not shown"), (100, "not shown")])
def test_a_guard_of_which_too_much_is_left_out_is_not_shown(scored: Scored, left_out: int, verdict: str) -> None:
    scores = scored({"base": [1.0] * 100, "lora_adapter": [1.0] * 100})
    scores = scores.with_columns(suite=pl.lit("world_choice"), metric=pl.lit("acc"))
    blinded = without(scores, "lora_adapter", ids(scores, range(left_out)))
    (guard,) = regression_guards(blinded, "lora_adapter")
    assert (guard.found.verdict, guard.left_out, guard.found.n) == (verdict, left_out, 100 - left_out)


def test_a_loss_stays_a_loss_however_much_is_left_out(scored: Scored) -> None:
    scores = scored({"base": [1.0] * 100, "lora_adapter": [0.0] * 100})
    scores = scores.with_columns(suite=pl.lit("world_choice"), metric=pl.lit("acc"))
    (guard,) = regression_guards(without(scores, "lora_adapter", ids(scores, range(50))), "lora_adapter")
    assert guard.found.verdict == "lost"


@pytest.mark.parametrize(("left_out", "passed"), [(0, True), (5, True), (6, False), (100, False)])
def test_a_check_fails_if_too_many_items_are_left_out(scored: Scored, left_out: int, passed: bool) -> None:
    scores = scored({"base": [1.0] * 100, "lora_adapter": [1.0] * 100})
    blinded = without(scores, "lora_adapter", ids(scores, range(left_out)))
    result = suites_can_be_answered(blinded.lazy())
    assert result.passed == passed
    assert f"{left_out} items left out" in str(result.description)
    if not passed:
        assert f"LoRA_adapter: {left_out}" in str(result.description).replace("lora", "LoRA")
        assert "longer context" in str(result.description)
    assert scores_are_finite_with_n(blinded.lazy()).passed, "a suite that nobody can take is another check's matter"


def test_scoreboard_and_report_show_n_and_items_left_out_of_each_model(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    names = ["base", *(adapter.name for adapter in adapters)]
    scores = scored({name: [1.0] * 4 + [0.0] * 16 for name in names})
    scores = without(scores, "prompt_tuning_adapter", ids(scores, [0, 1, 2]))
    scores = without(scores, "dpo_adapter", ids(scores, range(20)))
    result = compare(built(scores), scores, items, adapters)
    assert from_json(Comparison, to_json(result)) == result
    table = suite_table(result, SUITE)
    rows = {line[2:].split("  ")[0]: line[2:] for line in table.splitlines()}
    assert rows["prompt tuning"].split()[2:4] == ["17", "0.059"]
    assert rows["DPO"].split()[1:] == ["0", "-"]
    assert "prompt tuning: 3 of 20 test items of world_instructions are longer than" in " ".join(table.split())
    assert "DPO: 20 of 20 test items" in table
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "17 to 20 items, up to 3 left out that one of the models cannot answer" in paired_tests_table(result.tests)
    assert "| world_instructions | strict | 17 | 3 | 0.059 |" in markdown_table(result)
    data = gather(result, adapters, (scores, items), lambda run: f"http://{run}")
    text = markdown("t", sections(data))
    assert "Items left out" in text
    (line,) = [row for row in text.splitlines() if "15.0%" in row and "longer than its context" in row]
    assert [cell.strip() for cell in line.strip("|").split("|")][-5:-1] == ["test", "3", "20", "15.0%"]
    assert summary(result).splitlines()[0].split(",")[5:7] == ["n", "unanswerable"]
    assert all(sample["before"] and sample["after"] for sample in result.samples)


def test_answers_that_were_not_given_are_no_writing(scored: Scored) -> None:
    scores = scored({"base": [1.0] * 4, "lora_adapter": [1.0] * 4})
    found = {one.model: one.n for one in profiles(without(scores, "lora_adapter", ids(scores, [0])))}
    assert found == {"base": 4, "lora_adapter": 3}


def test_shares_add_up_over_reasons() -> None:
    counted = [
        UnanswerableItems("base", "toy", "test", "context_exceeded", 3, 20),
        UnanswerableItems("base", "toy", "test", "template_refused", 1, 20),
    ]
    assert shares(counted) == {("base", "toy", "test"): pytest.approx(0.2)}
