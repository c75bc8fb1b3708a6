"""Promotion through real runs, with MLflow's database and Dagster's event log."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread, Timer

import dagster as dg
import pytest

from resources.hardware import GPU_POOL
from resources.tracking import MlflowTracking
from synth_assets.registry.mlflow_tracker import MODEL
from synth_assets.registry.model_versions import CARD, model_version
from synth_assets.schemas.records import (
    AuditEntry,
    ChampionRecord,
    Clause,
    Decision,
)
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.promotion.alias import apply_decision, moved_by_hand
from synth_assets.stages.promotion.service_history import ServiceHistoryError
from synth_assets.storage.retractions import Recall, add_recalls
from tests.support.promotion import (
    FIRST,
    GOOD,
    ITEMS,
    METRIC,
    PROMPTS,
    SEALED_ITEMS,
    SUITE,
    WEIGHTS,
    Deployment,
    Week,
    actual_of,
    failed,
)

pytestmark = pytest.mark.integration


def test_a_better_adapter_serves_until_a_better_one_is_promoted(deployment: Deployment) -> None:
    first = deployment.run(GOOD)
    assert (first.outcome, first.opponent, first.candidate_version) == ("promoted", "base", "1"), first.reason
    assert deployment.tracker.alias("challenger") == "1"
    tags = deployment.tracker.version_tags("1")
    assert (tags["decision"], tags["champion.moved_by"], tags["decision.checks"]) == ("promoted", "ada", "2 passed")
    before = deployment.champion()
    assert deployment.run(GOOD).outcome == "unchanged"
    kept = deployment.champion()
    assert replace(kept, last=before.last) == before
    assert kept.last is not None
    assert (kept.last.outcome, kept.last.reason) == ("unchanged", "the candidate is already the champion")
    worse = deployment.run(Week(data="week 2", right=90))
    assert failed(worse) == ["effect"]
    assert (worse.opponent_version, deployment.champion().version) == ("1", "1")
    better = deployment.run(Week(data="week 3", right=150))
    assert (better.outcome, better.opponent_version) == ("promoted", "1"), better.reason
    assert (deployment.champion().version, deployment.champion().previous_version) == ("3", "1")


def test_a_decision_writes_the_model_card_of_its_version(deployment: Deployment, tmp_path: Path) -> None:
    deployment.run(GOOD)
    client = deployment.tracker.client
    version = client.get_model_version(MODEL, "1")
    card = Path(client.download_artifacts(str(version.run_id), CARD, str(tmp_path))).read_text("utf-8")
    assert card.startswith("---\nbase_model:")
    assert "- sft_dataset: `week 1`" in card
    assert f"| {SUITE} | test | {METRIC} | 0.500 | {ITEMS} |" in card
    assert str(version.description).startswith("# lora_adapter, version 1")
    assert str(version.description) in card


def test_a_failed_check_on_its_data_refuses_a_version_for_good(deployment: Deployment) -> None:  # fault 24
    refused = deployment.run(Week(data="week 1", right=100, good=False))
    assert failed(refused) == ["checks"]
    assert "sft_dataset no_leak: failed" in refused.reason
    deployment.run(Week(data="week 2", right=0))
    by_hand = deployment.promote(version="1", approve=True)
    assert failed(by_hand) == ["checks"]
    assert deployment.champion().version == ""


def test_a_version_is_promoted_by_number_and_rolled_back(deployment: Deployment) -> None:
    deployment.run(GOOD)
    deployment.run(Week(data="week 2", right=150))
    deployment.promote(rollback=True)
    back = deployment.champion()
    assert (back.action, back.version, back.previous_version, back.moved_by) == ("rolled back", "1", "2", "ada")
    again = deployment.promote()
    assert failed(again) == ["not rolled back"]
    assert deployment.champion().version == "1"
    assert deployment.promote(version="2", approve=True).outcome == "promoted"
    assert deployment.champion().version == "2"
    deployment.promote(rollback=True)
    assert deployment.promote(approve=True).outcome == "promoted", "the present candidate, with an approval"
    with pytest.raises(ServiceHistoryError, match="no version 9"):
        deployment.promote(version="9")


def test_a_move_in_mlflow_is_recorded_and_flagged(deployment: Deployment) -> None:
    deployment.run(GOOD)
    deployment.run(Week(data="week 2", right=90))
    deployment.tracker.set_alias("champion", "2", {})
    assert moved_by_hand(deployment.tracker, deployment.home.record("champion", ChampionRecord)) == "2"
    judged = deployment.promote(adopt=True)
    assert (judged.outcome, judged.candidate_version, judged.opponent_version) == ("refused", "2", "1")
    record = deployment.champion()
    assert (record.action, record.version, record.flagged) == ("moved by hand", "2", True)
    assert moved_by_hand(deployment.tracker, record) is None


def test_a_version_with_a_recalled_row_is_replaced_and_never_promoted(deployment: Deployment) -> None:
    deployment.run(GOOD)
    add_recalls(deployment.home.recalls(), [Recall("week 1", "recalled", "wrong", "ada", "2026-11-20T12:00:00")])
    deployment.run(Week(data="week 2", right=98))
    assert deployment.champion().version == "2", "one point worse, and clean"
    refused = deployment.promote(version="1", approve=True)
    assert failed(refused) == ["effect", "significance", "no recalled rows"]
    assert "week 1 (recalled by ada on 2026-11-20: wrong)" in refused.reason
    add_recalls(deployment.home.recalls(), [Recall("week 1", "let in", "mistaken", "ada", "2026-11-21T12:00:00")])
    again = deployment.promote(version="1", approve=True)
    assert failed(again) == ["effect", "significance"]


def test_a_version_without_row_manifest_counts_as_tainted(deployment: Deployment) -> None:
    add_recalls(deployment.home.recalls(), [Recall("other", "recalled", "wrong", "ada", "2026-11-20T12:00:00")])
    assert deployment.run(GOOD).outcome == "promoted"
    deployment.promote(rollback=True)
    for manifest in (deployment.home.manifests() / "lora_adapter").iterdir():
        manifest.unlink()
    refused = deployment.promote(approve=True)
    assert failed(refused) == ["no recalled rows"]
    assert "has no row manifest" in refused.reason


def test_the_evidence_of_each_version_is_in_the_registry(deployment: Deployment) -> None:
    deployment.run(GOOD)
    tags = deployment.tracker.version_tags("1")
    assert model_version(deployment.tracker, "1").data_versions == {"sft_dataset": "week 1"}
    attached = json.loads(tags[f"score.{SUITE}.test.{METRIC}"])
    assert (attached["value"], attached["n"]) == (0.5, ITEMS)


def test_sealed_items_are_scored_once_and_only_for_a_promotion(deployment: Deployment) -> None:
    decision = deployment.run(GOOD)
    assert sorted(set(PROMPTS)) == [("", "sealed"), (fingerprint("week 1"), "sealed")]
    assert len(PROMPTS) == 2 * SEALED_ITEMS
    expected = f"{SUITE} strict +1.000 (+1.000 to +1.000), n {SEALED_ITEMS}: held; 2 models scored so far"
    assert actual_of(decision, "sealed items") == expected
    tags = deployment.tracker.version_tags("1")
    attached = json.loads(tags[f"score.{SUITE}.sealed.{METRIC}"])
    assert (attached["value"], attached["n"]) == (1.0, SEALED_ITEMS)
    assert deployment.tracker.scored_items(attached["run_id"])["split"].unique().to_list() == ["sealed"]
    deployment.run(GOOD)
    assert failed(deployment.run(Week(data="week 2", right=90))) == ["effect"]
    assert len(PROMPTS) == 2 * SEALED_ITEMS, "neither for the champion again nor for a refused candidate"
    third = deployment.run(Week(data="week 3", right=150))
    assert actual_of(third, "sealed items").endswith("3 models scored so far")
    assert len(PROMPTS) == 3 * SEALED_ITEMS


def test_a_candidate_that_loses_on_sealed_items_is_refused(deployment: Deployment) -> None:
    deployment.run(GOOD)
    refused = deployment.run(Week(data="week 2", right=200, sealed=SEALED_ITEMS - 36))
    assert failed(refused) == ["sealed items"]
    assert "-0.300" in actual_of(refused, "sealed items")
    assert failed(deployment.promote(version="2", approve=True)) == ["sealed items"], "an approval does not override it"
    assert actual_of(deployment.promote(), "sealed items") == actual_of(refused, "sealed items")
    assert deployment.champion().version == "1"


def test_without_sealed_items_nothing_is_promoted(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIRST, "sealed", FIRST["sealed"].clear())
    refused = deployment.run(GOOD)
    assert failed(refused) == ["sealed items"]
    assert actual_of(refused, "sealed items") == "no scores on sealed items"


def test_a_champion_with_scores_on_other_items_is_scored_on_todays(deployment: Deployment) -> None:
    deployment.run(GOOD)
    PROMPTS.clear()
    scored = {name: text for name, text in deployment.tracker.version_tags("1").items() if name.startswith("score.")}
    worse = deployment.run(Week(data="week 2", right=90, skipped=20))
    champion = fingerprint("week 1")
    assert set(PROMPTS) == {(champion, "test")}
    assert failed(worse) == ["effect"]
    assert actual_of(worse, "effect").startswith("-0.050 on")
    assert deployment.promote().clauses == worse.clauses
    assert len(PROMPTS) == ITEMS, "once"
    assert deployment.tracker.version_tags("1").items() >= scored.items(), "the evidence by which it serves stays"
    better = deployment.run(Week(data="week 3", right=150, skipped=40))
    assert (better.outcome, better.opponent_version) == ("promoted", "1")
    assert actual_of(better, "paired items") == f"{ITEMS} items of {SUITE} strict"


def test_missing_weights_of_the_champion_are_restored_from_the_registry(deployment: Deployment) -> None:
    deployment.run(GOOD)
    folder = deployment.home.root() / deployment.champion().path
    shutil.rmtree(folder)
    better = deployment.run(Week(data="week 2", right=150, skipped=20))
    assert better.outcome == "promoted", better.reason
    assert (folder / WEIGHTS).is_file()


def test_a_champion_without_weights_refuses_with_the_remedy(deployment: Deployment) -> None:  # fault 25
    deployment.run(GOOD)
    shutil.rmtree(deployment.home.root() / deployment.champion().path)
    shutil.rmtree(deployment.home.root() / "mlartifacts" / "models")
    refused = deployment.run(Week(data="week 2", right=150, skipped=20))
    assert failed(refused) == ["paired items"]
    assert "version 1 must be scored but cannot be loaded" in refused.reason
    assert "synth rollback" in refused.reason
    assert deployment.promote(rollback=True).outcome == "promoted"
    assert deployment.promote().outcome == "promoted", "against the base, which can be scored"


def test_a_champion_of_another_base_is_no_opponent_on_new_items(deployment: Deployment) -> None:
    deployment.run(GOOD)
    refused = deployment.run(Week(data="week 2", right=150, skipped=20, base="other"))
    assert failed(refused) == ["paired items"]
    assert "it was trained on base r, the base is now other" in refused.reason


def test_only_one_of_two_concurrent_promotions_moves_the_alias(deployment: Deployment) -> None:  # fault 20
    for name in ("week 1", "week 2"):
        assert failed(deployment.run(Week(data=name, right=0)))
    tracking, outcomes, before = MlflowTracking(home=deployment.home), [], deployment.champion()

    def promote(version: str) -> None:
        clause = Clause("effect", passed=True, actual="", expected="")
        decision = Decision("promoted", "lora_adapter", version, "base", "", [clause], "better")
        try:
            with tracking.lock("promotion"):
                audit = AuditEntry(f"person {version}", f"2026-11-21T0{version}:00:00+00:00", "run")
                outcomes.append(apply_decision(tracking.tracker(), decision, before, audit).version)
        except ServiceHistoryError as error:
            outcomes.append(str(error))

    threads = [Thread(target=promote, args=(version,)) for version in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = deployment.tracker.alias("champion")
    assert outcomes[0] == served
    assert outcomes[1] == f"@champion is version {served}, the decision was made against version none: " + (
        "run the job promote again"
    )


def test_scoring_waits_for_a_gpu_slot_and_a_rollback_does_not(deployment: Deployment, tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:  # one in memory has no limits
        deployment.instance, storage = instance, instance.event_log_storage
        storage.set_concurrency_slots(GPU_POOL, 1)
        assert deployment.run(GOOD).outcome == "promoted"
        assert storage.get_concurrency_info(GPU_POOL).claimed_slots == [], "the slot was released"
        storage.claim_concurrency_slot(GPU_POOL, "a training", "lora_adapter")
        deployment.promote(rollback=True)
        assert deployment.champion().version == ""
        freed_at: list[float] = []

        def end_training() -> None:
            freed_at.append(time.monotonic())
            storage.free_concurrency_slot_for_step("a training", "lora_adapter")

        training = Timer(5.0, end_training)
        training.start()
        assert deployment.promote(approve=True).outcome == "promoted"
        assert freed_at, "the promotion waited for the end of the training"
        training.join()
