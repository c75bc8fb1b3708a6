"""Tasks of a user's own domain, read from a file."""

import re
from pathlib import Path

import pytest

from synth_assets.evals.suite import check_files
from synth_assets.evals.suites import domain, find_suites
from tests.support.fakes import jsonl

CONTEXT = "Dr. Amara Osei measured 1,250 samples in Accra between 2019 and 2021."
TASK = {
    "id": "summary",
    "prompt": "Summarise in one sentence.",
    "context": CONTEXT,
    "constraints": [["one_sentence", None]],
    "facts": ["1,250", "Accra"],
}


def write_domain(folder: Path, *tasks: dict[str, object]) -> None:
    jsonl(folder / "domain.jsonl", *tasks)


@pytest.mark.parametrize(
    ("response", "completed", "faithful"),
    [
        ("Amara Osei took 1,250 samples in Accra.", 1.0, 1.0),
        ("She took 1250 samples.", 1.0, 0.0),  # Accra is lost
        ("In Accra, 1,250 samples were measured by Kofi Mensah.", 1.0, 0.0),  # a name from nowhere
        ("In Accra, 1,250 samples were measured in 2022.", 1.0, 0.0),  # a number from nowhere
        ("Amara Osei was in Accra. She took 1,250 samples.", 0.0, 1.0),
        ("", 0.0, 0.0),
    ],
)
def test_domain_tasks_are_completed_and_faithful(
    response: str, completed: float, faithful: float, tmp_path: Path
) -> None:
    write_domain(tmp_path, TASK)
    (item,) = domain.items(tmp_path)
    assert domain.score(item, response) == {
        "passed": min(completed, faithful),
        "completed": completed,
        "faithful": faithful,
        "safe": None,
    }


def test_numbers_are_compared_by_value() -> None:
    assert domain.invented("It was 1250, then 3.5 and 1,250.00.", "1,250 and 3.50") == []
    assert domain.invented("1. It fell to 17 in Bonn", "It fell") == ["17", "Bonn"]


def test_domain_safety_scores_refusals_and_compliance(tmp_path: Path) -> None:
    write_domain(tmp_path, {"prompt": "Diagnose me.", "refuse": True}, {"prompt": "What is a cold?", "refuse": False})
    declines, answers = domain.items(tmp_path)
    no, yes = "I cannot diagnose you.", "A cold is an infection of the nose."
    assert [domain.score(item, text)["safe"] for item in (declines, answers) for text in (no, yes)] == [
        1.0,
        0.0,
        0.0,
        1.0,
    ]
    assert domain.score(declines, "") == {"passed": 0.0, "completed": None, "faithful": None, "safe": 0.0}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"prompt": " ", "refuse": True}, 'field prompt: expected text, got " " (text)'),
        ({"refuse": True}, "field prompt: expected text, got no such field; the fields are refuse"),
        ({"prompt": 3, "refuse": True}, "field prompt: expected text, got 3 (number)"),
        ({"prompt": "Say."}, "expected at least one of the fields context, constraints, facts, refuse"),
        ({"prompt": "Say.", "refuse": True, "colour": "red"}, "field colour: unknown field; expected id, split"),
        ({"prompt": "Say.", "refuses": True}, "field refuses: unknown field; did you mean refuse?"),
        ({"prompt": "Say.", "refuse": "true"}, 'field refuse: expected true or false, got "true" (text)'),
        ({"prompt": "Say.", "refuse": None}, "field refuse: expected true or false, got null"),
        ({"prompt": "Say.", "refuse": 1}, "field refuse: expected true or false, got 1 (number)"),
        ({"prompt": "Say.", "facts": "Accra"}, "field facts: expected a list of numbers and of texts with at least"),
        ({"prompt": "Say.", "facts": []}, "field facts: expected a list of numbers"),
        ({"prompt": "Say.", "facts": [""]}, "field facts: expected a list of numbers"),
        ({"prompt": "Say.", "facts": [True]}, "field facts: expected a list of numbers"),
        ({"prompt": "Say.", "facts": [None]}, "field facts: expected a list of numbers"),
        ({"prompt": "Say.", "facts": None}, "field facts: expected a list of numbers"),
        ({"prompt": "Say.", "context": ""}, "field context: expected text"),
        ({"prompt": "Say.", "context": ["a"]}, 'field context: expected text, got ["a"] (list)'),
        ({"prompt": "Say.", "id": 1.5, "refuse": True}, "field id: expected text or a whole number, got 1.5 (number)"),
        ({"prompt": "Say.", "id": True, "refuse": True}, "field id: expected text or a whole number, got true"),
        (
            {"prompt": "Say.", "refuse": True, "split": "train"},
            "field split: expected validation, test, sealed",
        ),
        ({"prompt": "Say.", "constraints": []}, "field constraints: expected a list of [type, value], got []"),
        ({"prompt": "Say.", "constraints": ["uppercase"]}, "field constraints: expected a list of [type, value]"),
        ({"prompt": "Say.", "constraints": {"lines": 2}}, "field constraints: expected a list of [type, value]"),
        ({"prompt": "Say.", "constraints": [["haiku", None]]}, "field constraints: expected a constraint type (lines"),
        (
            {"prompt": "Say.", "constraints": [["lines", "2"]]},
            "expected a whole number of at least 1 as the value",
        ),
        (
            {"prompt": "Say.", "constraints": [["lines", 0]]},
            "expected a whole number of at least 1 as the value",
        ),
        (
            {"prompt": "Say.", "constraints": [["lines", True]]},
            "expected a whole number of at least 1 as the value",
        ),
        (
            {"prompt": "Say.", "constraints": [["keyword", 7]]},
            "expected text with at least one word as the value",
        ),
        ({"prompt": "Say.", "constraints": [["first_word", "so it"]]}, "expected one word as the value of first_word"),
        ({"prompt": "Say.", "constraints": [["json_keys", "a"]]}, "expected a list of different names as the value of"),
        ({"prompt": "Say.", "constraints": [["json_keys", ["a", "a"]]]}, "expected a list of different names"),
        ({"prompt": "Say.", "constraints": [["no_commas", True]]}, "expected null as the value of no_commas, got True"),
    ],
)
def test_malformed_domain_task_raises(task: dict[str, object], message: str, tmp_path: Path) -> None:
    write_domain(tmp_path, {"prompt": "Fine.", "refuse": False}, task)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        domain.items(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'domain.jsonl'}, line 2")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["a", "a"], 'line 2, field id: expected a unique value, got "a" as in'),
        ([1, "1"], 'line 2, field id: expected a unique value, got "1" as in'),
        ([2, None], 'line 2, field id: expected a unique value, got "2" as in'),  # the second line's number
    ],
)
def test_duplicate_task_id_raises(tasks: list[object], message: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}.", "refuse": True} | ({"id": i} if i else {}) for n, i in enumerate(tasks)]
    write_domain(tmp_path, *rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        domain.items(tmp_path)


def test_duplicate_task_prompt_raises(tmp_path: Path) -> None:
    task = {"prompt": "Say.", "context": "Soon.", "refuse": True}
    write_domain(tmp_path, task, {**task, "context": "Later."}, {**task, "refuse": False})
    with pytest.raises(ValueError, match="line 3, field prompt: expected a unique value"):
        domain.items(tmp_path)


@pytest.mark.parametrize(
    ("response", "faithful"),
    [
        ("Lima is the capital of Peru and has 10,092,000 inhabitants.", 1.0),
        ("It lies in Peru, in South America: 10.092.000 people.", 0.0),  # that number is another one
        ("In Peru. As of 2020 some 10092000 people live there, says INEI.", 1.0),  # nothing says that it is invented
        ("In Chile.", 0.0),
    ],
)
def test_without_a_context_only_facts_count(response: str, faithful: float, tmp_path: Path) -> None:
    write_domain(tmp_path, {"prompt": "Where is Lima, and how many live there?", "facts": ["Peru", 10092000]})
    (item,) = domain.items(tmp_path)
    assert domain.score(item, response)["faithful"] == faithful


def test_fact_missing_from_the_context_is_faithful(tmp_path: Path) -> None:
    write_domain(tmp_path, {"prompt": "Sum up.", "context": "The capital of Ghana grew.", "facts": ["Accra"]})
    (item,) = domain.items(tmp_path)
    assert domain.score(item, "The city of Accra grew.")["faithful"] == 1.0
    assert domain.score(item, "The city of Accra grew like Lagos.")["faithful"] == 0.0


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"id": "a", "prompt": "Where is Lima?", "facts": ["Peru"]}\r\n',
        '{"prompt": "Repeat the note.", "context": "Accra\u2028is in\x85Ghana.", "facts": ["Accra"]}\n'.encode(),
        b'\n\n{"prompt": "Say.", "refuse": true}\n   \n',
        b'{"prompt": "Say.", "refuse": true}',
    ],
)
def test_byte_order_mark_and_line_endings_are_read(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "domain.jsonl").write_bytes(data)
    assert len(domain.items(tmp_path)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "Say.", "refu', "the record is not valid JSON"),
        (b'{"prompt": "Say.", "refuse": true} {"prompt": "Go.", "refuse": true}', "the record is not valid JSON"),
        (b'{"prompt": "Say.", "refuse": true, "refuse": false}', "field refuse: expected once in a record, got twice"),
        (b'{"prompt": "Say.", "facts": [NaN]}', "NaN is not valid JSON"),
        (b'["prompt"]', 'expected an object with named fields, got ["prompt"] (list)'),
        (b'{"prompt": "caf\xe9", "refuse": true}', "the bytes are not UTF-8"),
        (b'{"prompt": "\\ud800", "refuse": true}', "field prompt: expected text in UTF-8"),
        (b'{"prompt": ' + b"[" * 2_000, "the record is nested too deeply"),
        (b'{"prompt": "' + b"a" * 300_000 + b'", "refuse": true}', "a record has more than 262,144 bytes"),
    ],
)
def test_malformed_line_raises_with_its_number(line: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "domain.jsonl").write_bytes(b'{"prompt": "Fine.", "refuse": false}\n' + line + b"\n")
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        domain.items(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'domain.jsonl'}, line 2")
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(("data", "message"), [(b"", "is empty"), ("{}".encode("utf-16"), "is UTF-16")])
def test_other_file_format_raises(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "domain.jsonl").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        domain.items(tmp_path)


def test_check_files_reads_files_without_the_hub(tmp_path: Path) -> None:
    check_files(find_suites(["knowledge", "mmlu", "gsm8k"]), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file domain\.jsonl"):
        check_files(find_suites(["knowledge", "domain"]), tmp_path)
    write_domain(tmp_path, {"prompt": "Say.", "refuse": "true"})
    with pytest.raises(ValueError, match="line 1, field refuse"):
        check_files(find_suites(["knowledge", "domain"]), tmp_path)
    (tmp_path / "gsm8k_test.jsonl").write_text('{"question": "How many?", "answer": "7"}\n')
    with pytest.raises(ValueError, match="field answer: expected text with its result"):
        check_files(find_suites(["gsm8k"]), tmp_path)


def test_missing_domain_file_names_the_remedy(tmp_path: Path) -> None:
    for folder in (tmp_path, None):
        with pytest.raises(FileNotFoundError, match="put it there"):
            domain.items(folder)
