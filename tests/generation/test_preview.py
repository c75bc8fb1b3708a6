from pathlib import Path

import polars as pl
import pytest

from synth_assets.cli.preview import Preview, make_preview, preview_text
from synth_assets.cli.session import Session, open_session
from tests.support.fakes import silent

SETTINGS = ("raw_instructions.max_instruction_tokens=48", "raw_instructions.max_response_tokens=48")


@pytest.fixture
def session(own_home: Path) -> Session:
    return open_session("cpu")


@pytest.fixture
def made(session: Session) -> Preview:
    return make_preview(session, None, SETTINGS, silent)


def test_ten_rows_are_shown_with_decisions_and_estimated_cost(made: Preview) -> None:
    text = preview_text(made, samples=6_400)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("\n  > ") == text.count("\n  < ") == 10
    assert "stop/stop" in text
    assert len(made.reasons) == made.rows.height == 64
    assert f"{made.reasons.count('')} of 64 rows pass the rules" in text
    assert made.reasons.count("") > 32
    assert made.rows_per_s is not None
    assert f"about {6_400 / made.rows_per_s / 60:.1f} minutes at this speed" in text


def test_the_block_is_kept_for_the_run_and_nothing_is_materialised(session: Session, made: Preview) -> None:
    again = make_preview(session, "first", SETTINGS, silent)
    assert again.rows.equals(made.rows)
    assert again.tokens_per_s is None
    assert "no speed was measured" in preview_text(again)
    assert len(list((session.home / "shards" / "generation").glob("*.parquet"))) == 1
    assert not (session.home / "tables").exists()
    assert session.instance.get_dynamic_partitions("batches") == []


def test_texts_of_a_model_cannot_act_on_the_terminal(made: Preview) -> None:
    wild = made.rows.head(1).to_dicts()[0] | {"instruction": "\x1b[31mred\nnext", "topic": "birds"}
    rows = pl.from_dicts([wild], schema=made.rows.schema)
    text = preview_text(Preview(rows, ["too_long"], made.spec, None, None))
    assert "\x1b" not in text
    assert "topic birds: rejected: too_long" in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("raw_instructions.sampels=3", "no such field; did you mean samples"),
        ("raw_instructions.turns=0", "MagpieSpec.turns must be at least 1, got 0"),
        ("lora_adapter.rank=4", "must be a setting of raw_instructions in a preview, got one of lora_adapter"),
        ("raw_instructions.topics={birds: You know birds.}", "the family embedded does not support"),
    ],
)
def test_wrong_settings_are_explained(session: Session, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_preview(session, None, (setting,), silent)
