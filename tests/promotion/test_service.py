"""Champions and rollbacks through real runs, with MLflow's database and Dagster's event log."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from synth_assets.cli.registry import champion_text, history_text
from synth_assets.registry.mlflow_tracker import MODEL
from synth_assets.schemas.records import (
    ChampionRecord,
)
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.promotion.alias import moved_by_hand
from synth_assets.stages.promotion.service_history import ServiceHistoryError
from tests.support.promotion import (
    GOOD,
    SEALED_ITEMS,
    WEIGHTS,
    Deployment,
    Week,
    card_of,
    champion_words,
    failed,
    recall_row,
    session_of,
)

pytestmark = pytest.mark.integration


def test_the_history_lists_moves_with_person_and_reason(deployment: Deployment) -> None:
    session = session_of(deployment)
    with pytest.raises(ValueError, match="there is no promotion decision yet"):
        history_text(session, 9)
    deployment.run(GOOD)
    deployment.run(Week(data="week 2", right=90))
    deployment.promote(rollback=True)
    deployment.tracker.set_alias("champion", "2", {})
    deployment.promote(adopt=True)
    lines = history_text(session, 9).splitlines()
    assert " ".join(lines[0].split()).startswith("serves version 2 (lora_adapter) since")
    assert "moved by hand by a person in MLflow" in " ".join(history_text(session, 9).split())
    lines = lines[lines.index("") + 1 :]
    moves = [line.split("UTC  ")[1].split("; by")[0] for line in lines[::2]]
    assert moves == [
        "moved by hand: base -> 2",
        "rolled back: 1 -> base",
        "refused: 2; 1 stays",
        "promoted: base -> 1",
    ]
    assert [line.split("; by ")[1].split(",")[0] for line in lines[::2]] == ["a person in MLflow", "ada", "ada", "ada"]
    assert lines[-1] == "    every clause of the policy passes"
    assert "refused by effect (-0.050 on" in lines[5]
    assert history_text(session, 1).splitlines()[-2:] == lines[:2]
    deployment.tracker.client.delete_model_version(MODEL, "1")
    assert "promoted: base -> 1 (deleted)" in history_text(session, 9)


def test_an_approval_in_mlflow_counts_until_a_rollback(deployment: Deployment) -> None:
    deployment.run(GOOD)
    deployment.promote(rollback=True)
    assert failed(deployment.promote()) == ["not rolled back"]
    deployment.tracker.tag_version("1", {"approved_by": "grace"})
    approved = deployment.promote()
    assert (approved.outcome, approved.reason) == (
        "promoted",
        "every clause of the policy passes; approved by grace",
    )
    deployment.promote(rollback=True)
    assert failed(deployment.promote()) == ["not rolled back"], "the approval is older than the rollback"


def test_a_champion_that_was_deleted_in_mlflow_is_noticed_and_replaced(deployment: Deployment) -> None:  # fault 25
    deployment.run(GOOD)
    deployment.tracker.client.delete_model_version(MODEL, "1")
    assert moved_by_hand(deployment.tracker, deployment.home.record("champion", ChampionRecord)) == ""
    with pytest.raises(ServiceHistoryError, match="no champion to roll back"):
        deployment.promote(rollback=True)
    better = deployment.run(Week(data="week 2", right=50))
    assert (better.outcome, better.opponent) == ("promoted", "base")
    assert deployment.champion().version == better.candidate_version


def test_the_evidence_of_the_champion_outlives_every_other_decision(deployment: Deployment) -> None:
    deployment.run(GOOD)
    card, tags, record = card_of(deployment, "1"), deployment.tracker.version_tags("1"), deployment.champion()
    assert "| effect | yes |" in card

    def is_unharmed() -> None:
        assert card_of(deployment, "1") == card
        assert deployment.tracker.version_tags("1") == tags
        assert replace(deployment.champion(), last=record.last) == record
        words = champion_words(deployment)
        assert "serves version 1 (lora_adapter)" in words
        assert "because every clause of the policy passes" in words
        assert "pass effect: +0.500 on" in words

    deployment.run(GOOD)  # unchanged, by a run of the whole graph
    is_unharmed()
    assert deployment.promote(version="1", approve=True).outcome == "unchanged"
    is_unharmed()
    assert "last decision: version 1 unchanged" in champion_words(deployment)
    assert deployment.run(Week(data="week 2", right=90)).outcome == "refused"
    is_unharmed()
    assert "last decision: version 2 refused" in champion_words(deployment)
    assert "| effect | no |" in card_of(deployment, "2")


def test_the_champion_text_after_a_sequence_of_moves(deployment: Deployment) -> None:
    deployment.run(GOOD)
    deployment.run(Week(data="week 2", right=150))
    assert "serves version 2" in champion_words(deployment)
    assert "synth rollback restores version 1" in champion_words(deployment)
    deployment.run(Week(data="week 3", right=90))

    deployment.tracker.set_alias("champion", "3", {})
    words = champion_words(deployment)
    assert "serves version 3" in words, "before any decision saw the move"
    assert "because @champion was moved to version 3 in MLflow" in words
    assert "last decision: version 3 refused" in words

    deployment.promote(rollback=True, reason="too terse")
    words = champion_words(deployment)
    assert deployment.champion().version == "2"
    assert "because rolled back by ada from version 3 to version 2: too terse" in words
    assert "pass effect: +0.250 on" in words, "the clauses of its promotion"
    card = card_of(deployment, "2")
    assert "rolled back by ada from version 3 to version 2: too terse" in card
    assert "## Earlier decisions" in card
    assert "| effect | yes |" in card.split("## Earlier decisions")[1]

    deployment.tracker.client.delete_model_version(MODEL, "2")
    words = champion_words(deployment)
    assert "serves the base model" in words
    assert "because version 2, which served, was deleted in MLflow" in words
    deployment.promote(rollback=True)
    assert deployment.champion().version == "1"
    recall_row(deployment, "week 1")
    words = champion_words(deployment)
    assert "TAINTED version 1 serves" in words
    assert "promoted" in words
    deployment.tracker.client.delete_registered_model_alias(MODEL, "champion")
    words = champion_words(deployment)
    assert "serves the base model" in words
    assert "@champion was removed in MLflow" in words
    with pytest.raises(ServiceHistoryError, match=r"skipped version 1 \(no recalled rows: 1 recalled row: week 1"):
        deployment.promote(rollback=True)


def test_a_rollback_skips_versions_with_recalled_rows_or_lost_files(deployment: Deployment) -> None:
    for week, right in (("week 1", 50), ("week 2", 100), ("week 3", 150), ("week 4", 200)):
        assert deployment.run(Week(data=week, right=right)).outcome == "promoted"
    recall_row(deployment, "week 3", "<b>it names</b> \x1b[31ma person")
    shutil.rmtree(deployment.home.adapters() / fingerprint("week 2"))
    source = str(deployment.tracker.registered("2").source)
    shutil.rmtree(Path(source.removeprefix("file://")))
    back = deployment.promote(rollback=True)
    assert (back.outcome, back.candidate_version) == ("promoted", "1")
    assert "skipped version 3 (no recalled rows: 1 recalled row: week 3" in back.reason
    assert "version 2 (files intact: the files of version 2 are missing in MLflow" in back.reason
    card = card_of(deployment, "1")
    assert "<b>" not in card
    assert "\x1b" not in card + champion_text(session_of(deployment)) + history_text(session_of(deployment), 9)


def test_a_rollback_restores_damaged_files_from_the_registry(deployment: Deployment) -> None:
    deployment.run(GOOD)
    deployment.run(Week(data="week 2", right=150))
    folder = deployment.home.adapters() / fingerprint("week 1")
    (folder / WEIGHTS).write_bytes(b"damaged")
    assert deployment.promote(rollback=True).candidate_version == "1"
    assert load_file(folder / WEIGHTS)["weight"].tolist() == [100, SEALED_ITEMS]


def test_a_named_rollback_is_refused_and_forced_with_a_reason(deployment: Deployment) -> None:
    deployment.run(GOOD)
    deployment.run(Week(data="week 2", right=150))
    recall_row(deployment, "week 1")
    refused = deployment.promote(rollback=True, version="1")
    assert failed(refused) == ["no recalled rows"]
    assert deployment.champion().version == "2"
    deployment.promote(rollback=True, version="1", force=True, reason="the row is harmless")
    served = deployment.champion()
    assert (served.version, served.action) == ("1", "rolled back")
    assert "accepted by ada: the row is harmless" in champion_words(deployment)


INVALID_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"version": "99"}, r"no version 99; the versions are 1 \(lora_adapter, @champion, @challenger\)"),
    ({"version": "@nobody"}, "@nobody points to no version"),
    ({"version": "dpo_adapter"}, "dpo_adapter has no version: it was not trained yet, or its training failed"),
    ({"rollback": True, "adopt": True}, "rollback goes with version, force and reason only"),
    ({"adopt": True, "version": "1"}, "adopt evaluates the version that @champion points to"),
    ({"force": True}, "require rollback"),
    ({"rollback": True, "version": "1"}, "served before the present one"),
]


def test_an_invalid_request_fails_with_a_one_line_message(deployment: Deployment) -> None:
    deployment.run(GOOD)
    for options, message in INVALID_REQUESTS:
        with pytest.raises(ServiceHistoryError, match=message) as raised:
            deployment.promote(**options)
        assert "\n" not in str(raised.value)
        assert raised.value.__cause__ is None


def test_versions_are_named_by_number_alias_and_adapter(deployment: Deployment) -> None:
    deployment.run(GOOD)
    deployment.run(Week(data="week 2", right=90))
    for name in (" 02", "@challenger", "lora_adapter"):
        assert deployment.promote(version=name).candidate_version == "2"
    assert deployment.promote(version="@champion").outcome == "unchanged"


def test_a_serving_version_without_an_adapter_asset_is_rolled_back(deployment: Deployment) -> None:
    deployment.run(GOOD)
    client = deployment.tracker.client
    foreign = client.create_model_version(MODEL, source="s3://models/foreign")
    client.set_registered_model_alias(MODEL, "champion", foreign.version)
    assert "serves version 2 (not registered by an adapter asset)" in champion_words(deployment)
    with pytest.raises(ServiceHistoryError, match=r"has no tag asset.*out of service with synth rollback"):
        deployment.promote()
    deployment.promote(rollback=True)
    assert deployment.champion().version == "1"
