"""`synth why`, `trace` and `recall` on handwritten tables; test_pipeline.py covers them on a whole run."""

from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from resources.storage import SynthHome
from synth_assets.cli.recall import Request, reach_text, recall, recalls_text
from synth_assets.cli.rows import WIDTH, generated_rows, row_story
from synth_assets.cli.session import Session, open_session
from synth_assets.cli.trace import trace_text
from synth_assets.cli.why import why_text
from synth_assets.schemas.tables import INSTRUCTIONS, JUDGED, PAIRS, REJECTED, REJECTED_PAIRS, SFT_ROWS
from synth_assets.stages.filtering.preferences import PREFIX
from synth_assets.stages.generation.import_store import ImportRequest, find_import, import_file, read_import
from synth_assets.storage.lineage import LineageError
from synth_assets.storage.reviews import Review, add_review
from tests.support.fakes import jsonl

ATTACK = "\x1b[31mred\x1b[0m " + "<b>" * 200


def row(row_id: str, instruction: str = "Name a bird.", **columns: object) -> dict[str, object]:
    generation = {"model": "teacher", "revision": "r1", "engine": "transformers 5", "template": "llama-3", "seed": 7}
    sampling = {"temperature": 1.0, "response_temperature": 0.7, "top_p": 0.9, "history": []}
    ends = {f"{side}_{what}": value for side in ("instruction", "response") for what, value in ENDS.items()}
    texts = {"row_id": row_id, "source": "magpie", "batch": "first", "instruction": instruction, "response": "A crow."}
    return {**generation, **sampling, **ends, **texts, **columns}


ENDS = {"tokens": 4, "finish_reason": "stop"}


@pytest.fixture
def session(own_home: Path) -> Session:
    home = SynthHome(folder=str(own_home))
    kept, echo = row("aa11", score=0.75, group="aa11", split="train"), row("ab22", ATTACK)
    rejected = {**echo, "reason": "echo", "detail": "0.93 is above 0.8"}
    tables = home.tables()
    (tables / "raw_instructions").mkdir()
    pl.DataFrame([kept, echo], schema=INSTRUCTIONS).write_parquet(tables / "raw_instructions" / "first.parquet")
    pl.DataFrame([kept], schema=JUDGED).write_parquet(tables / "filtered_instructions.parquet")
    pl.DataFrame([rejected], schema=REJECTED).write_parquet(tables / "rejected_instructions.parquet")
    pl.DataFrame([kept], schema=SFT_ROWS).write_parquet(tables / "sft_dataset.parquet")
    pair = {"pair_id": "p1", "row_id": "aa11", "split": "train", "instruction": "Name a bird.", "chosen": "A crow."}
    rewards = {"rejected": "A cow.", "chosen_reward": 2.0, "rejected_reward": 0.5, "margin": 1.5}
    pl.DataFrame([pair | rewards], schema=PAIRS).write_parquet(tables / "preference_pairs.parquet")
    imported = {"pair_id": "p2", "row_id": "ac33", "source": "mine.jsonl", "history": [], "instruction": "Name a lake."}
    sides = {"chosen": "Lake Como.", "rejected": "</s>"}
    rejected_pair = imported | sides | {"reason": f"{PREFIX}control_token_in_response", "detail": "</s>"}
    pl.DataFrame([imported | sides], schema=PAIRS).write_parquet(tables / "imported_preferences.parquet")
    pl.DataFrame([rejected_pair], schema=REJECTED_PAIRS).write_parquet(tables / "rejected_preferences.parquet")
    fates = pl.DataFrame({"row_id": ["aa11", "ab22", "ac33"], "fate": ["kept", "echo", "control_token_in_response"]})
    home.leave_row_manifest("filtered_instructions", "f1", fates)
    return open_session("cpu")


def test_an_imported_pair_names_the_rejected_side(session: Session) -> None:
    text = why_text(session, "ac")
    assert f"fate      rejected: {PREFIX}control_token_in_response (format)" in text
    assert "rejected  </s>" in text


def test_a_kept_row_shows_its_origin_and_datasets(session: Session) -> None:
    text = why_text(session, "aa")
    for part in (
        "fate      kept, score 0.75",
        "from      magpie, batch first",
        "made by   teacher at r1, transformers 5, seed 7",
        "asked     Name a bird.",
        "answered  A crow.",
        "in        filtered_instructions, sft_dataset (train), preference_pairs (train)",
        "pair      p1, reward 2.000 over 0.500, margin 1.500",
        "rejected  A cow.",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_reviews_are_shown_with_author_and_day(session: Session) -> None:
    add_review(session.storage.reviews(), Review("aa11", "reject", "ada", "2026-11-28T06:00:00+00:00", "wrong"))
    assert "review    rejected by ada on 2026-11-28: wrong" in why_text(session, "aa")


def test_a_rejected_row_shows_reason_value_and_setting(session: Session) -> None:
    text = why_text(session, "ab22")
    assert "fate      rejected: echo (content)" in text
    assert "because   0.93 is above 0.8" in text
    assert "filtered_instructions.max_echo_similarity=VALUE" in text
    assert "\x1b" not in text  # fault 12
    assert "<U+001B>" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert len(text) < 2_000


@pytest.mark.parametrize(("prefix", "message"), [("zz", "no row 'zz'"), ("a", "3 rows start with"), ("", "no row")])
def test_an_unknown_row_is_refused(session: Session, prefix: str, message: str) -> None:
    with pytest.raises(LineageError, match=message):
        why_text(session, prefix)


def test_an_imported_row_names_its_file_and_line(session: Session, tmp_path: Path) -> None:
    rows = [{"instruction": "", "output": "x"}, {"instruction": "Name a fish.", "output": "A carp."}]
    import_file(ImportRequest(jsonl(tmp_path / "mine.jsonl", *rows)), session.storage.imports())
    stored = find_import(session.storage.imports(), "mine.jsonl")
    assert stored is not None
    imported = read_import(stored).instructions.collect()
    imported.write_parquet(session.home / "tables" / "imported_instructions.parquet")
    text = "\n".join(row_story(session.home, imported["row_id"][0]))
    assert "from      mine.jsonl, line 2" in text
    assert "made by" not in text, "unknown for an import"


def test_a_row_of_a_replaced_table_is_found_in_the_cached_blocks(session: Session) -> None:
    folder = session.storage.shards("generation")
    pl.DataFrame([row("old1", "Name a tree.")], schema=INSTRUCTIONS).write_parquet(folder / "a-b.parquet")
    assert generated_rows(session.home, ["old1", "aa11"])["instruction"].to_list() == ["Name a bird.", "Name a tree."]


def test_a_recall_shows_its_effect_and_needs_a_reason(session: Session) -> None:
    text = reach_text(session, ["aa11", "ab22"], [])
    assert "filtered_instructions (1), sft_dataset (1), preference_pairs (1)" in text
    assert "ab22 is already rejected (echo: 0.93 is above 0.8)" in text
    with pytest.raises(ValueError, match="needs a reason"):
        recall(session, Request(["aa11"]), Console())
    with pytest.raises(LineageError, match="no row"):
        recall(session, Request(["aa11", "zz"], "wrong"), Console())
    recall(session, Request(["aa11"], "wrong", dry_run=True), Console())
    assert recalls_text(session) == "no row is recalled"


def test_a_missing_version_and_a_wrong_suffix_are_refused(session: Session) -> None:
    with pytest.raises(LineageError, match="no version 'nope'"):
        trace_text(session, "nope", None, None)
    with pytest.raises(ValueError, match=r"\.csv"):
        trace_text(session, "1", None, Path("rows.xlsx"))
