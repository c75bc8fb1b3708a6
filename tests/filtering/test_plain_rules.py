"""The plain-loop baseline of perf/filtering.py gives the same reasons as the rules."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

PLAIN = Path(__file__).parents[2] / "perf" / "plain_rules.py"
ROWS = Path(__file__).with_name("labelled_rows.jsonl")


def test_the_plain_loop_gives_the_reasons_of_the_rules(first_reason: Callable[..., str]) -> None:
    spec = importlib.util.spec_from_file_location("plain_rules", PLAIN)
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    for row in map(json.loads, ROWS.read_text("utf-8").splitlines()):
        if row["label"] != "foreign":
            reason = first_reason(row["instruction"], row["response"])
            assert reason in {plain.objection(row["instruction"], row["response"], 1 << 30), "not_english"}
