"""The model card lists what the registry holds, in the format of the Hugging Face Hub."""

import json
import re
from dataclasses import replace
from typing import Any

from synth_assets.schemas.records import Clause, Decision, RecordedDecision
from synth_assets.stages.promotion.model_card import attached_scores, model_card
from tests.support.records import make_adapter

FACTS = {"value": 0.625, "n": 80, "ci_low": 0.516, "ci_high": 0.723, "interval": "wilson 0.95", "run_id": "0123456789"}
TAGS = {
    "asset": "lora_adapter",
    "score.world_instructions.test.strict": json.dumps(FACTS),
    "score.world_instructions.validation.strict": json.dumps({**FACTS, "value": 0.7}),
    "score.world_instructions.sealed.strict": json.dumps({**FACTS, "value": 0.5}),
}
RECORD = make_adapter(
    fingerprint="f" * 16,
    path="adapters/f",
    manifest_sha256="0" * 64,
    model_version="3",
    mlflow_run_id="run",
    base="embedded-base",
    base_revision="abc",
    spec={"learning_rate": 2e-4, "rank": 8, "gradient_checkpointing": False},
    data_versions={"sft_dataset": "d1"},
    trainable_parameters=1_000,
    total_parameters=1_000_000,
    peak_memory_bytes=2**20,
    tokens_per_s=1_234.0,
    seconds=12.0,
    final_loss=0.5,
)
DECISION = Decision(
    outcome="refused",
    candidate="lora_adapter",
    candidate_version="3",
    opponent="base",
    opponent_version="",
    clauses=[Clause("effect", passed=False, actual="+0.010", expected=">= +0.020")],
    reason="refused by effect",
)


def card(tags: dict[str, str]) -> str:
    return model_card(RECORD, tags, DECISION, {"passed": 40, "warned": 1}, {"raw_instructions[b1]": "d0"})


def header(text: str) -> Any:  # noqa: ANN401 - the hub's own classes
    from huggingface_hub import ModelCard

    return ModelCard(text).data


def test_the_hub_reads_its_scores() -> None:
    data = header(card(TAGS))
    assert data.base_model == "embedded-base"
    assert data.library_name == "peft"
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_type) == ("world_instructions", "test", "strict")
    assert result.metric_value == 0.625


def test_it_shows_n_interval_run_clauses_checks_and_data() -> None:
    text = card(TAGS)
    line = "| world_instructions | test | strict | 0.625 | 80 | 0.516 to 0.723 (wilson 0.95) | `01234567` |"
    assert line in text.splitlines()
    assert line.replace("test", "sealed").replace("0.625", "0.500") in text.splitlines()
    assert "refused against the base model: refused by effect." in text
    assert "| effect | no | +0.010 | >= +0.020 |" in text
    assert "Checks: 40 passed, 1 warned." in text
    assert "- raw_instructions[b1]: `d0`" in text
    assert "- rank: 8" in text
    assert "gradient_checkpointing" not in text


def test_a_card_without_scores_lists_none() -> None:
    assert attached_scores({"asset": "lora_adapter"}) == []
    assert header(card({})).eval_results is None
    assert "Not scored." in card({})


def test_text_that_a_person_typed_is_escaped_in_the_card() -> None:
    typed = "<script>x</script> ![i](http://e.org) [l](http://e.org) | cell \x1b[31m\n# heading \u202e"
    decision = replace(
        DECISION, reason=typed, clauses=[Clause("no recalled rows", passed=False, actual=typed, expected="none")]
    )
    record = replace(RECORD, name=typed, base=typed + "`")
    tags = {**TAGS, "score.mine": "1", "score.a.b.c": "oops", f"score.{typed}.test.x": json.dumps(FACTS)}
    earlier = [RecordedDecision(replace(decision, outcome="promoted"), typed, typed, "run")]
    card = model_card(record, tags, decision, {}, {typed: typed}, earlier).partition("\n---\n")[2]
    text = re.sub(r"`[^`\n]*`", "", card)  # what stands between backticks does not act
    for acting in ("<script", r"(?<!\\)!\[", r"(?<!\\)\]\(", "\x1b", "\n# heading", "\u202e"):
        assert not re.search(acting, text), acting
    assert "\x1b" not in card
    assert text.count("| no recalled rows | no |") == 2
