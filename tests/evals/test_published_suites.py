"""Suites of lm-eval's own tasks, on documents written for this test in the fields and files of the published ones."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from synth_assets.embedded import model_path
from synth_assets.evals import lm_eval_harness
from synth_assets.evals.suite import Item, Suite, item_table, null_scores
from synth_assets.evals.suites import SUITES, gsm8k
from tests.support.fakes import jsonl

pytestmark = pytest.mark.integration

MAX_TOKENS = 64
Pair = tuple[Any, Any]

MMLU = {
    "nutrition": [("Which of these is a fruit?", "iron", "an apple", "a chair", "a cloud", "B")],
    "formal_logic": [("If p then q. p. What follows?", "q", "not q", "not p", "nothing", "0")],
}
TRUTHS = [
    ("Do goldfish forget after seconds?", "No, they remember; They remember for months", "Yes; They forget; At once"),
    ("What is the Moon made of?", "Rock", "Green cheese"),
]
SUMS = [
    ("Ann has 3 pens and buys 4. How many has she?", "She has 3 + 4 = <<3+4=7>>7 pens.\n#### 7"),
    ("A book costs $1,200. How much are two?", "Two cost 2 * 1200 = 2400.\n#### 2,400"),
]
ENDINGS = [
    {
        "activity_label": "Baking",
        "ctx_a": "A man opens the oven.",
        "ctx_b": "he",
        "endings": ["takes out the bread.", "flies away [title] now.", "sings to a stone.", "sells a car."],
        "label": "0",
        "source_id": "video~1",
    }
]
SCIENCE = [
    {
        "id": "q1",
        "question": "What falls from clouds?",
        "choices": {"text": ["rain", "gold", "fish"], "label": ["A", "B", "C"]},
        "answerKey": "A",
    }
]


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("benchmarks")
    (found / "mmlu").mkdir()
    write_csv(found / "mmlu" / "nutrition_test.csv", [("question", "a", "b", "c", "d", "answer"), *MMLU["nutrition"]])
    write_csv(found / "mmlu" / "formal_logic_test.csv", MMLU["formal_logic"])  # the published files have no header
    write_csv(found / "truthfulqa.csv", [("Question", "Correct Answers", "Incorrect Answers"), *TRUTHS])
    jsonl(found / "gsm8k_test.jsonl", *[{"question": q, "answer": a} for q, a in SUMS])
    jsonl(found / "hellaswag_validation.jsonl", *ENDINGS)
    for name in ("arc_easy", "arc_challenge"):
        jsonl(found / f"{name}_test.jsonl", *SCIENCE)
    return found


@pytest.fixture(scope="module")
def pair() -> Pair:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_path("base")
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


def command_line(suite: Suite, items: Sequence[Item], folder: Path) -> dict[str, dict[str, Any]]:
    """Results of lm-eval's command line on the same documents, by task."""
    names = lm_eval_harness.write_tasks(folder, suite, items)
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", ",".join(names)]
    command += ["--model_args", f"pretrained={model_path('base')},dtype=float32", "--include_path", str(folder)]
    command += ["--device", "cpu", "--batch_size", "16", "--output_path", str(folder / "out")]
    if suite.chat:
        command.append("--apply_chat_template")
    if suite.task and suite.task.generates:
        command += ["--gen_kwargs", f"max_gen_toks={MAX_TOKENS}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = (folder / "out").rglob("results_*.json")
    return json.loads(report.read_text())["results"]


def assert_parity(pair: Pair, suite: Suite, items: Sequence[Item], folder: Path) -> None:
    """Every score of every task is that of the command line, to the last digit."""
    import numpy as np

    assert suite.task is not None
    theirs = command_line(suite, items, folder)
    ours = lm_eval_harness.run_task(pair, suite, items, batch_size=16, max_tokens=MAX_TOKENS)
    by_task: dict[str, list[Mapping[str, float]]] = {}
    for item, measured in zip(items, ours, strict=True):
        by_task.setdefault(f"{Path(suite.task.definition(item)).stem}_items", []).append(measured.scores)
    assert by_task.keys() == theirs.keys()
    for task, scores in by_task.items():
        for own, (name, behind) in suite.task.metrics.items():
            # lm-eval takes the mean by numpy, which sums in pairs
            assert float(np.mean([score[own] for score in scores])) == theirs[task][f"{name},{behind}"]


@pytest.mark.parametrize("name", ["mmlu", "gsm8k"])
def test_scores_are_those_of_the_lm_eval_command_line(name: str, pair: Pair, folder: Path, tmp_path: Path) -> None:
    assert_parity(pair, SUITES[name], SUITES[name].items(folder), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmlu", "truthfulqa_mc2", "gsm8k"])
def test_scores_of_real_benchmarks_are_those_of_the_command_line(
    name: str, pair: Pair, tmp_path: Path, test_data: Path
) -> None:
    items = SUITES[name].items(test_data / "benchmarks")
    assert_parity(pair, SUITES[name], items[:: max(1, len(items) // 50)][:50], tmp_path)


def test_every_published_suite_measures_its_documents(pair: Pair, folder: Path) -> None:
    for name in ("mmlu", "hellaswag", "arc_easy", "arc_challenge", "truthfulqa_mc2", "gsm8k"):
        suite = SUITES[name]
        items = suite.items(folder)
        assert item_table([suite], folder).height == len(items) > 0
        outcomes = lm_eval_harness.run_task(pair, suite, items, batch_size=4, max_tokens=8)
        assert len(outcomes) == len(items)
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, str):  # the examples before a question take more than the 256 tokens of this base
                assert outcome == "context_exceeded"
                continue
            assert tuple(outcome.scores) == suite.metrics
            assert all(0 <= score <= 1 for score in outcome.scores.values())
            assert not item.choices or outcome.response in {choice.strip() for choice in item.choices} | set("ABCD")


def test_items_have_document_prompt_choices_and_cluster(folder: Path) -> None:
    logic, nutrition = SUITES["mmlu"].items(folder)
    assert (logic.prompt, nutrition.prompt) == (MMLU["formal_logic"][0][0], MMLU["nutrition"][0][0])
    assert json.loads(nutrition.answer)["answer"] == 1
    goldfish, _ = SUITES["truthfulqa_mc2"].items(folder)
    assert goldfish.choices == ("No, they remember", "They remember for months", "Yes", "They forget", "At once")
    assert SUITES["hellaswag"].items(folder)[0].cluster == "video~1"


def test_null_models_of_published_suites_match_hand_arithmetic(folder: Path) -> None:
    # the first choice is right for logic and wrong for nutrition
    assert null_scores(SUITES["mmlu"], SUITES["mmlu"].items(folder))["constant"] == {"acc": 0.5}
    # equally likely answers put 2/5 and 1/2 on true ones
    truth = null_scores(SUITES["truthfulqa_mc2"], SUITES["truthfulqa_mc2"].items(folder))
    assert truth["empty"] == {"mc2": pytest.approx(0.45)}
    assert null_scores(SUITES["gsm8k"], SUITES["gsm8k"].items(folder))["refusal"] == {"flexible": 0.0, "strict": 0.0}


@pytest.mark.parametrize(
    ("text", "flexible", "strict"),
    [
        ("#### 2,400", 1.0, 1.0),
        ("They cost $2400.", 1.0, 0.0),
        ("2400 is more than 7", 0.0, 0.0),
        ("#### 2400 and then 7", 0.0, 1.0),
        ("no number", 0.0, 0.0),
    ],
)
def test_gsm8k_answer_extraction_matches_lm_eval(text: str, flexible: float, strict: float, folder: Path) -> None:
    from lm_eval.tasks import TaskManager

    item = SUITES["gsm8k"].items(folder)[1]
    assert gsm8k.score(item, text) == {"flexible": flexible, "strict": strict}
    (name,) = lm_eval_harness.write_tasks(folder, SUITES["gsm8k"], [item])
    task = TaskManager(include_path=str(folder), include_defaults=False).load([name])["tasks"][name]
    task.build_all_requests()
    for instance in task.instances:
        instance.resps = [text]
    task.apply_filters()
    assert gsm8k.SUITE.task is not None
    for own, (metric, behind) in gsm8k.SUITE.task.metrics.items():
        read = task.instances[0].filtered_resps[behind]
        judged: dict[str, float] = dict(task.process_results(task.instances[0].doc, [read]) or {})
        assert judged[metric] == {"flexible": flexible, "strict": strict}[own]


@pytest.mark.parametrize("name", ["mmlu", "hellaswag", "arc_easy", "arc_challenge", "truthfulqa_mc2", "gsm8k"])
def test_missing_file_without_hub_names_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"put the file there \(SYNTH_BENCHMARKS names the folder\)"):
        item_table([SUITES[name]], tmp_path)


def test_ifeval_needs_its_verifiers(tmp_path: Path) -> None:
    try:
        import langdetect  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'lm-eval\[ifeval\]'"):
            SUITES["ifeval"].items(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("gsm8k_test.jsonl", "", "is empty"),
        ("gsm8k_test.jsonl", " \n", "has no documents"),
        ("gsm8k_test.jsonl", "{}\n", "line 1, field question: expected text, got no such field"),
        ("gsm8k_test.jsonl", "3\n", "line 1: expected an object with named fields, got 3 (number)"),
        ("gsm8k_test.jsonl", "{\n", "line 1: the record is not valid JSON"),
        ("gsm8k_test.jsonl", '{"question": "", "answer": "#### 1"}\n', "line 1, field question: expected text"),
        (
            "gsm8k_test.jsonl",
            '{"question": "a", "answer": "1"}\n',
            "line 1, field answer: expected text with its",
        ),
        ("gsm8k_test.jsonl", '{"question": "a", "answer": "#### 1", "n": 1}\n', "line 1, field n: unknown field"),
        (
            "truthfulqa.csv",
            "Question\nWhy?\n",
            "line 2, field Correct Answers: expected answers separated by semicolons",
        ),
        (
            "truthfulqa.csv",
            'Question,Correct Answers,Incorrect Answers\n"Why?\nSo,a,b\nHow?,c,d\n',
            "line 2: a quote opens a cell and does not close it",
        ),
        ("truthfulqa.csv", "Question,Correct Answers,Incorrect Answers\nWhy?, ; ,b\n", "line 2, field Correct Answers"),
        ("truthfulqa.csv", "Question,Correct Answers,Incorrect Answers\nA?,a,b\nA?,a,b\n", "line 3, field Question"),
        ("mmlu/nutrition_test.csv", "a,b,c\n", "line 1: the row has more or fewer cells than the header"),
        (
            "mmlu/nutrition_test.csv",
            "q,a,b,c,d,E\n",
            "line 1, field answer: expected A to D, or 0 to 3",
        ),
        ("mmlu/nutrition_test.csv", ",a,b,c,d,A\n", "line 1, field question: expected text"),
        ("mmlu/nutrition_test.csv", 'q,a,b,c,d,A\n"q,a,b,c,d,A\nr,a,b,c,d,A\n', "line 2: a quote opens a cell"),
        ("hellaswag_validation.jsonl", json.dumps(ENDINGS[0] | {"label": "4"}), "field label: expected 0 to 3, got"),
        (
            "hellaswag_validation.jsonl",
            json.dumps(ENDINGS[0] | {"endings": "a"}),
            "field endings: expected a list",
        ),
        (
            "arc_easy_test.jsonl",
            json.dumps(SCIENCE[0] | {"answerKey": "E"}),
            "field answerKey: expected one of",
        ),
        (
            "arc_easy_test.jsonl",
            json.dumps(SCIENCE[0] | {"choices": []}),
            "field choices: expected an object",
        ),
        (
            "arc_easy_test.jsonl",
            f"{json.dumps(SCIENCE[0])}\n" * 2,
            "line 2, field id: expected a unique value",
        ),
    ],
)
def test_malformed_file_raises_with_file_line_and_field(file: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    name = next(suite.name for suite in SUITES.values() if suite.files and Path(file).match(suite.files))
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        SUITES[name].items(tmp_path)
    assert str(path) in str(refused.value)


def test_byte_order_mark_quotes_and_carriage_returns_are_read(tmp_path: Path) -> None:
    (tmp_path / "mmlu").mkdir()
    rows = '\ufeffWhich?,"a, b","say ""hi""",c\u2028d,,B\r\n"Two\nlines?",a,b,c,d,3\r\n'
    (tmp_path / "mmlu" / "nutrition_test.csv").write_text(rows, "utf-8", newline="")
    which, two = SUITES["mmlu"].items(tmp_path)
    assert which.choices == ("a, b", 'say "hi"', "c\u2028d", "")
    assert (two.prompt, json.loads(two.answer)["answer"]) == ("Two\nlines?", 3)
    document = {"question": "one\u2028line\x85?", "answer": "so\n#### 7"}
    data = f"\ufeff{json.dumps(document, ensure_ascii=False)}\r\n"
    (tmp_path / "gsm8k_test.jsonl").write_text(data, "utf-8", newline="")
    assert SUITES["gsm8k"].items(tmp_path)[0].prompt == document["question"]


def test_mmlu_questions_may_repeat(tmp_path: Path) -> None:
    (tmp_path / "mmlu").mkdir()
    (tmp_path / "mmlu" / "nutrition_test.csv").write_text("q,a,b,c,d,A\n" * 2)
    assert len(SUITES["mmlu"].items(tmp_path)) == 2


def test_published_files_are_read_completely(test_data: Path) -> None:
    found = {name: len(SUITES[name].items(test_data / "benchmarks")) for name in ("gsm8k", "truthfulqa_mc2", "mmlu")}
    assert found["gsm8k"] == 1_319
    assert found["truthfulqa_mc2"] == 817
    assert found["mmlu"] > 4_000
