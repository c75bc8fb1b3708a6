"""Which column of which published shape becomes what; that nothing is dropped without being named."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth_assets.record_files.records import RecordFileError
from synth_assets.stages.generation.import_report import report_lines
from synth_assets.stages.generation.imports import Imported, ImportOptions, read_file
from synth_assets.stages.generation.reasons import REASONS, REPAIRS
from tests.support.fakes import jsonl

SYSTEM = {"role": "system", "content": "Be short."}
ASK, GREEN, BLUE = (
    {"role": "user", "content": "Colour of grass?"},
    {"role": "assistant", "content": "Green."},
    {"role": "assistant", "content": "Blue."},
)
HELLO = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
GPT_ASK, GPT_GREEN, GPT_BLUE = (
    {"from": "human", "value": "Colour of grass?"},
    {"from": "gpt", "value": "Green."},
    {"from": "gpt", "value": "Blue."},
)
HH = "\n\nHuman: Colour of grass?\n\nAssistant: "
Q, A = "Colour of grass?", "Green."


def read(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> Imported:  # noqa: ANN401
    return read_file(jsonl(tmp_path / "rows.jsonl", *rows), ImportOptions(**options))


def said(row: dict[str, Any], *answers: str) -> tuple[Any, ...]:
    history = [(turn["role"], turn["content"]) for turn in row["history"]]
    return (history, row["instruction"], *(row[answer] for answer in answers))


BOOK = "The ferry runs since 1911."
INSTRUCTIONS_OF_SHAPES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "alpaca with input": ({"instruction": Q, "input": BOOK, "output": A}, ([], f"{Q}\n\n{BOOK}", A)),
    "input beside response": ({"instruction": Q, "input": BOOK, "response": A}, ([], f"{Q}\n\n{BOOK}", A)),
    "dolly": (
        {"instruction": Q, "context": BOOK, "response": A, "category": "closed_qa"},
        ([], f"{Q}\n\n{BOOK}", A),
    ),
    "question and context": ({"question": Q, "context": BOOK, "answer": A}, ([], f"{Q}\n\n{BOOK}", A)),
    "prompt and context": ({"prompt": Q, "context": BOOK, "completion": A}, ([], f"{Q}\n\n{BOOK}", A)),
    "openorca": (
        {"id": "x", "system_prompt": "Be short.", "question": Q, "response": A},
        ([("system", "Be short.")], Q, A),
    ),
    "openorca without a system prompt": ({"id": "x", "system_prompt": "", "question": Q, "response": A}, ([], Q, A)),
    "alpaca of LLaMA-Factory": (
        {"instruction": Q, "input": "", "output": A, "system": "Be short.", "history": [["Hi", "Hello."]]},
        ([("system", "Be short."), ("user", "Hi"), ("assistant", "Hello.")], Q, A),
    ),
    "history of turns": (
        {"instruction": Q, "output": A, "history": HELLO},
        ([("user", "Hi"), ("assistant", "Hello.")], Q, A),
    ),
    "history that is empty": ({"instruction": Q, "output": A, "history": []}, ([], Q, A)),
    "sharegpt with a system column": (
        {"conversations": [GPT_ASK, GPT_GREEN], "system": "Be short.", "tools": "[]"},
        ([("system", "Be short.")], Q, A),
    ),
    "messages with a system turn": ({"messages": [SYSTEM, ASK, GREEN]}, ([("system", "Be short.")], Q, A)),
    "the same system prompt twice": (
        {"messages": [SYSTEM, ASK, GREEN], "system": "Be short."},
        ([("system", "Be short.")], Q, A),
    ),
    "developer turn": (
        {"messages": [{"role": "developer", "content": "Be short."}, ASK, GREEN]},
        ([("system", "Be short.")], Q, A),
    ),
    "text parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": Q}]}, GREEN]},
        ([], Q, A),
    ),
    "TRL prompt and completion": ({"prompt": [ASK], "completion": [GREEN]}, ([], Q, A)),
    "TRL prompt with a system turn": (
        {"prompt": [SYSTEM, ASK], "completion": [GREEN]},
        ([("system", "Be short.")], Q, A),
    ),
    "TRL completion that goes on": (
        {"prompt": [HELLO[0]], "completion": [HELLO[1], ASK, GREEN]},
        ([("user", "Hi"), ("assistant", "Hello.")], Q, A),
    ),
    "turns as JSON in a text": ({"messages": json.dumps([ASK, GREEN])}, ([], Q, A)),
    "struct of lists": ({"messages": {"role": ["user", "assistant"], "content": [Q, A]}}, ([], Q, A)),
    "HH prompt": ({"prompt": HH, "completion": A}, ([], Q, A)),
    "KTO": ({"prompt": Q, "completion": A, "label": True}, ([], Q, A)),
    "TRL conversational KTO": ({"prompt": [ASK], "completion": [GREEN], "label": True}, ([], Q, A)),
    "KTO of LLaMA-Factory": ({"messages": [ASK, GREEN], "kto_tag": True}, ([], Q, A)),
}


@pytest.mark.parametrize("shape", INSTRUCTIONS_OF_SHAPES)
def test_instructions_of_published_shapes(tmp_path: Path, shape: str) -> None:
    record, expected = INSTRUCTIONS_OF_SHAPES[shape]
    imported = read(tmp_path, record)
    assert imported.report.rejected == {}
    assert said(imported.instructions.collect().row(0, named=True), "response") == expected
    assert imported.preferences.collect().is_empty()


PAIRS_OF_SHAPES: dict[str, tuple[dict[str, Any], list[tuple[str, str]], str]] = {
    "texts": ({"prompt": Q, "chosen": "Green.", "rejected": "Blue."}, [], Q),
    "with input": ({"instruction": Q, "input": BOOK, "chosen": "Green.", "rejected": "Blue."}, [], f"{Q}\n\n{BOOK}"),
    "orca": (
        {"system": "Be short.", "question": Q, "chosen": "Green.", "rejected": "Blue."},
        [("system", "Be short.")],
        Q,
    ),
    "with history": (
        {"instruction": Q, "history": [["Hi", "Hello."]], "chosen": "Green.", "rejected": "Blue."},
        [("user", "Hi"), ("assistant", "Hello.")],
        Q,
    ),
    "TRL": ({"prompt": [ASK], "chosen": [GREEN], "rejected": [BLUE]}, [], Q),
    "TRL with a system turn": (
        {"prompt": [SYSTEM, ASK], "chosen": [GREEN], "rejected": [BLUE]},
        [("system", "Be short.")],
        Q,
    ),
    "TRL without a prompt": ({"chosen": [ASK, GREEN], "rejected": [ASK, BLUE]}, [], Q),
    "a text prompt and whole conversations": ({"prompt": Q, "chosen": [ASK, GREEN], "rejected": [ASK, BLUE]}, [], Q),
    "a text prompt and a system turn": (
        {"prompt": Q, "chosen": [SYSTEM, ASK, GREEN], "rejected": [SYSTEM, ASK, BLUE]},
        [("system", "Be short.")],
        Q,
    ),
    "a text prompt and earlier turns": (
        {"prompt": Q, "chosen": [*HELLO, ASK, GREEN], "rejected": [*HELLO, ASK, BLUE]},
        [("user", "Hi"), ("assistant", "Hello.")],
        Q,
    ),
    "the first turn as prompt": (
        {"prompt": "Hi", "chosen": [*HELLO, ASK, GREEN], "rejected": [*HELLO, ASK, BLUE]},
        [("user", "Hi"), ("assistant", "Hello.")],
        Q,
    ),
    "a system column and conversations": (
        {"system": "Be short.", "prompt": Q, "chosen": [*HELLO, ASK, GREEN], "rejected": [*HELLO, ASK, BLUE]},
        [("system", "Be short."), ("user", "Hi"), ("assistant", "Hello.")],
        Q,
    ),
    "one conversation and one text": ({"prompt": Q, "chosen": [SYSTEM, ASK, GREEN], "rejected": "Blue."},
        [("system", "Be short.")], Q),
    "sharegpt of LLaMA-Factory": (
        {"conversations": [GPT_ASK], "chosen": GPT_GREEN, "rejected": GPT_BLUE, "system": "Be short."},
        [("system", "Be short.")],
        Q,
    ),
    "HH": ({"chosen": f"{HH}Green.", "rejected": f"{HH}Blue."}, [], Q),
    "HH of several turns": (
        {
            "chosen": f"\n\nHuman: Hi\n\nAssistant: Hello.{HH}Green.",
            "rejected": f"\n\nHuman: Hi\n\nAssistant: Hello.{HH}Blue.",
        },
        [("user", "Hi"), ("assistant", "Hello.")],
        Q,
    ),
    "HH with a prompt": ({"prompt": HH, "chosen": " Green.", "rejected": " Blue."}, [], Q),
}  # fmt: skip


@pytest.mark.parametrize("shape", PAIRS_OF_SHAPES)
def test_pairs_of_published_shapes(tmp_path: Path, shape: str) -> None:
    record, history, instruction = PAIRS_OF_SHAPES[shape]
    imported = read(tmp_path, record)
    assert imported.report.rejected == {}
    pair = imported.preferences.collect().row(0, named=True)
    assert said(pair, "chosen", "rejected") == (history, instruction, "Green.", "Blue.")


REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "label": ({"prompt": Q, "completion": "I hate you.", "label": False}, "labelled_bad"),
    "label 0": ({"prompt": Q, "completion": "I hate you.", "label": 0}, "labelled_bad"),
    "label of LLaMA-Factory": ({"messages": [ASK, GREEN], "kto_tag": False}, "labelled_bad"),
    "tool turn": ({"messages": [ASK, {"role": "tool", "content": "42"}, GREEN]}, "tool_turn"),
    "observation": (
        {"conversations": [GPT_ASK, {"from": "observation", "value": "1"}, GPT_GREEN]},
        "tool_turn",
    ),
    "tool call": (
        {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, GREEN]},
        "tool_turn",
    ),
    "image": ({"messages": [{"role": "user", "content": [{"type": "image"}]}, GREEN]}, "part_not_text"),
    "no text": ({"messages": [{"role": "user", "content": None}, GREEN]}, "missing_content"),
    "other role": ({"messages": [{"role": "judge", "content": "x"}, GREEN]}, "unknown_role"),
    "excluded answer": ({"messages": [ASK, GREEN | {"weight": 0}]}, "answer_weight_zero"),
    "excluded loss": ({"messages": [ASK, GREEN | {"loss": False}]}, "answer_weight_zero"),
    "two system prompts": ({"messages": [SYSTEM, ASK, GREEN], "system": "Be long."}, "two_system_prompts"),
    "other prompts": ({"prompt": "Hi", "chosen": [ASK, GREEN], "rejected": [ASK, BLUE]}, "prompts_differ"),
    "other openings": ({"chosen": [ASK, GREEN], "rejected": [HELLO[0], BLUE]}, "prompts_differ"),
    "history": ({"instruction": Q, "output": A, "history": ["Hi"]}, "history_not_turns"),
    "conversation": ({"messages": "no json"}, "cell_not_json"),
    "number": ({"instruction": Q, "output": 4}, "not_text"),
    "null": ({"instruction": Q, "output": None}, "missing_column_output"),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_unusable_records_are_rejected_with_reason_and_remedy(tmp_path: Path, kind: str) -> None:
    record, reason = REJECTED[kind]
    good = {"instruction": "Name a bird.", "output": "Owl."} if "output" in record else INSTRUCTIONS_OF_SHAPES["KTO"][0]
    imported = read(tmp_path, good, record)
    assert imported.report.rejected == {reason: 1}
    assert imported.report.lines == {reason: [2]}
    assert imported.report.rows == 1
    text = "\n".join(report_lines(imported.report))
    assert f"rejected 1: {reason} (line 2)" in text
    assert reason.startswith("missing_column") or REASONS[reason] in text


def test_labelled_bad_rows_are_no_instructions_unless_labels_are_ignored(tmp_path: Path) -> None:
    rows = [
        {"prompt": "What is 2 + 2?", "completion": "4", "label": True},
        {"prompt": "What is 3 + 3?", "completion": "I hate you.", "label": False},
    ]
    imported = read(tmp_path, *rows)
    assert imported.instructions.collect()["response"].to_list() == ["4"]
    assert list(imported.report.formats) == ["kto"]
    ignored = read(tmp_path, *rows, columns={"label": ""})
    assert ignored.report.rows == 2
    assert ignored.report.unused == {"label": 2}


@pytest.mark.parametrize("labels", [("sports", "music"), (1, 5), ("true", "maybe")])
def test_a_column_called_label_that_holds_no_judgement_is_named_and_not_used(
    tmp_path: Path, labels: tuple[object, object]
) -> None:
    imported = read(tmp_path, *({"prompt": Q, "completion": A, "label": label} for label in labels))
    assert (imported.report.rows, imported.report.unused) == (2, {"label": 2})


def test_a_label_that_turns_out_to_be_none_is_rejected(tmp_path: Path) -> None:
    rows = [{"prompt": Q, "completion": A, "label": True}] * 100
    imported = read(tmp_path, *rows, {"prompt": Q, "completion": A, "label": "maybe"})
    assert imported.report.rejected == {"label_not_boolean": 1}


NAMED = {
    "instruction": ("frage", Q),
    "response": ("antwort", A),
    "input": ("text", BOOK),
    "context": ("text", BOOK),
    "system": ("rolle", "Be short."),
    "history": ("zuvor", [["Hi", "Hello."]]),
    "label": ("gut", True),
    "weight": ("gewicht", 2),
    "score": ("note", 4.5),
}


@pytest.mark.parametrize("role", ["input", "context", "system", "history", "label", "weight", "score"])
def test_every_role_can_be_given_to_a_column(tmp_path: Path, role: str) -> None:
    roles = ["instruction", "response", role]
    record = {NAMED[name][0]: NAMED[name][1] for name in roles}
    imported = read(tmp_path, record, columns={name: NAMED[name][0] for name in roles})
    row = imported.instructions.collect().row(0, named=True)
    assert imported.report.unused == {}
    expected = {
        "input": ([], f"{Q}\n\n{BOOK}", A),
        "context": ([], f"{Q}\n\n{BOOK}", A),
        "system": ([("system", "Be short.")], Q, A),
        "history": ([("user", "Hi"), ("assistant", "Hello.")], Q, A),
    }
    assert said(row, "response") == expected.get(role, ([], Q, A))


def test_one_role_can_be_given_and_the_others_found(tmp_path: Path) -> None:
    record = {"instruction": Q, "output": A, "persona": "Be short.", "input": "x"}
    row = read(tmp_path, record, columns={"system": "persona", "input": ""}).instructions.collect().row(0, named=True)
    assert said(row, "response") == ([("system", "Be short.")], Q, A)


def test_chosen_and_rejected_can_be_given(tmp_path: Path) -> None:
    columns = {"instruction": "frage", "chosen": "gut", "rejected": "schlecht", "context": "text"}
    imported = read(tmp_path, {"frage": Q, "gut": "Green.", "schlecht": "Blue.", "text": BOOK}, columns=columns)
    pair = imported.preferences.collect().row(0, named=True)
    assert said(pair, "chosen", "rejected") == ([], f"{Q}\n\n{BOOK}", "Green.", "Blue.")


def test_rows_of_weight_zero_are_rejected_and_numbers_are_reported(tmp_path: Path) -> None:
    rows = [{"prompt": Q, "completion": A, "w": weight, "s": weight} for weight in (0, 0.5, "2", "heavy")]
    imported = read(tmp_path, *rows, columns={"weight": "w", "score": "s"})
    assert imported.report.rejected == {"weight_zero": 1, "weight_not_a_number": 1}
    assert "w: 3 numbers from 0 to 2, not used in training" in "\n".join(report_lines(imported.report))


def test_every_unused_column_and_turn_field_is_named(tmp_path: Path) -> None:
    turns = [ASK | {"name": "Mila"}, GREEN | {"weight": 1, "tool_calls": [], "loss": True}]
    record = {"messages": turns, "id": "x", "source": "web", "empty": None, "prompt": Q}
    report = read(tmp_path, record, record).report
    assert report.unused == {"id": 2, "source": 2, "prompt": 2}
    assert report.unused_fields == {"name": 2, "weight": 2, "tool_calls": 2, "loss": 2}
    text = "\n".join(report_lines(report))
    assert all(f"{name} (2)" in text for name in [*report.unused, *report.unused_fields])
    assert json.loads(json.dumps(report.facts()))["unused"] == {"id": 2, "source": 2, "prompt": 2}


def test_a_preference_set_that_holds_its_turns_twice_names_the_copy(tmp_path: Path) -> None:
    record = {"prompt": Q, "messages": [ASK, GREEN], "chosen": [ASK, GREEN], "rejected": [ASK, BLUE], "score_chosen": 9}
    assert read(tmp_path, record).report.unused == {"messages": 1, "score_chosen": 1}


def test_column_names_cannot_act_on_the_terminal_or_fill_the_report(tmp_path: Path) -> None:
    names = {f"{'x' * 100}{n}": 1 for n in range(300)}
    report = read(tmp_path, {"prompt": Q, "completion": A, "\x1b[31mred": 1, **names}).report
    text = "\n".join(report_lines(report))
    assert "\x1b" not in text
    assert len(text) < 4_000
    with pytest.raises(RecordFileError) as caught:
        read(tmp_path, {"\x1b[31mred": 1})
    assert "\x1b" not in str(caught.value)


def test_null_is_the_same_as_absent(tmp_path: Path) -> None:
    chosen_null = read(tmp_path, {"instruction": Q, "output": A, "chosen": None, "rejected": None, "input": None})
    assert chosen_null.instructions.collect()["instruction"].to_list() == [Q]
    assert chosen_null.report.unused == {}
    mixed = read(
        tmp_path,
        {"messages": [ASK, GREEN], "instruction": None, "output": None},
        {"messages": None, "instruction": "Name a bird.", "output": "Owl."},
        {"prompt": Q, "chosen": "Green.", "rejected": "Blue.", "messages": None},
    )
    assert mixed.instructions.collect()["response"].to_list() == ["Green.", "Owl."]
    assert mixed.preferences.collect()["chosen"].to_list() == ["Green."]
    assert mixed.report.formats == {"messages": 1, "alpaca": 1, "preference": 1}


def test_columns_filled_with_null_count_as_absent(tmp_path: Path) -> None:
    turns = [[GPT_ASK, GPT_GREEN], [ASK, BLUE]]
    pq.write_table(pa.table({"messages": turns}), tmp_path / "mixed.parquet")
    assert read_file(tmp_path / "mixed.parquet").instructions.collect()["response"].to_list() == ["Green.", "Blue."]
    lists = [{"role": ["user", "assistant"], "content": [Q, A]}]
    pq.write_table(pa.table({"messages": lists}), tmp_path / "lists.parquet")
    assert read_file(tmp_path / "lists.parquet").instructions.collect()["response"].to_list() == [A]
    both = [
        pd.DataFrame([{"prompt": Q, "completion": A, "label": True}]),
        pd.DataFrame([{"instruction": Q, "output": A}]),
    ]
    pd.concat(both).to_parquet(tmp_path / "both.parquet")
    assert read_file(tmp_path / "both.parquet").report.rows == 2


def test_turns_as_json_in_a_cell_of_a_csv_are_read(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"prompt": [json.dumps([SYSTEM, ASK])], "chosen": [json.dumps([GREEN])], "rejected": ["[{Blue."]}
    )
    frame.write_csv(tmp_path / "a.csv")
    pair = read_file(tmp_path / "a.csv").preferences.collect().row(0, named=True)
    assert said(pair, "chosen", "rejected") == ([("system", "Be short.")], Q, "Green.", "[{Blue.")
    pl.DataFrame({"messages": [json.dumps([ASK, GREEN])]}).write_csv(tmp_path / "b.csv")
    assert read_file(tmp_path / "b.csv").instructions.collect()["response"].to_list() == [A]


def test_an_answer_that_is_json_stays_a_text(tmp_path: Path) -> None:
    answer = json.dumps([ASK, GREEN])
    rows = read(tmp_path, {"prompt": "Write turns as JSON.", "completion": answer}).instructions.collect()
    assert rows["response"].to_list() == [answer]


def test_a_dialogue_as_answer_stays_a_text(tmp_path: Path) -> None:
    answer = "Human: Hi\n\nAssistant: Hello"
    rows = read(tmp_path, {"prompt": "Write a dialogue.", "completion": answer}).instructions.collect()
    assert rows["response"].to_list() == [answer]


def test_a_format_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    record = {"instruction": Q, "output": A, "messages": [ASK, BLUE]}
    assert read(tmp_path, record).instructions.collect()["response"].to_list() == ["Blue."]
    named = read(tmp_path, record, format="alpaca")
    assert named.instructions.collect()["response"].to_list() == ["Green."]
    assert named.report.unused == {"messages": 1}


def test_the_report_lists_the_role_of_each_column(tmp_path: Path) -> None:
    rows = [{"question": Q, "context": BOOK, "answer": A}, {"prompt": Q, "answer": A}]
    assert "read as completion (instruction=question/prompt, response=answer, input=context): 2" in "\n".join(
        report_lines(read(tmp_path, *rows).report)
    )


def test_every_repair_is_explained(tmp_path: Path) -> None:
    record = {"prompt": f"{HH}", "completion": "\ufeffGreen.\r\n", "input": "n/a"}
    turn = {"messages": [{"role": "developer", "content": "Be short."}, ASK, GREEN]}
    repaired = read(tmp_path, record, turn).report.repaired
    assert set(repaired) == set(REPAIRS)
