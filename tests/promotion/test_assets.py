"""Promotion through real runs, with MLflow's database and Dagster's event log."""

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Thread, Timer
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from resources.check_results import CheckResults, upstream_versions
from resources.hardware import GPU_POOL, Hardware
from resources.inference import Inference
from resources.storage import AssetStorage, SynthHome
from resources.tracking import MlflowTracking
from synth_assets.cli.registry import champion_text, history_text
from synth_assets.cli.session import Session
from synth_assets.embedded import world
from synth_assets.embedded.answers import good_answer
from synth_assets.evals.scoring import metrics
from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import SUITES
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.registry.mlflow_tracker import MODEL, MlflowTracker
from synth_assets.registry.model_versions import CARD, model_version
from synth_assets.schemas.records import (
    AdapterRecord,
    AuditEntry,
    ChampionRecord,
    Clause,
    Comparison,
    Decision,
    Metric,
    ModelRecord,
)
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import ITEM_SCORES
from synth_assets.stages.promotion.alias import apply_decision, moved_by_hand
from synth_assets.stages.promotion.assets import champion, promotion_decision
from synth_assets.stages.promotion.config import PromotionConfig
from synth_assets.stages.promotion.service_history import ServiceHistoryError
from synth_assets.storage.manifests import content_hash, folder_hash, write_manifest
from synth_assets.storage.retractions import Recall, add_recalls
from synth_assets.training.methods import ADAPTERS

pytestmark = pytest.mark.integration

SUITE = "world_instructions"
METRIC = "strict"
ITEMS, SEALED_ITEMS = 200, 120
BASE_REVISION = "r"
WEIGHTS = "adapter_model.safetensors"
FIRST = {split: item_table([SUITES[SUITE]]).filter(split=split) for split in ("test", "sealed")}
NUMBERS = {prompt: (split, n) for split, items in FIRST.items() for n, prompt in enumerate(items["prompt"])}
PROMPTS: list[tuple[str, str]] = []
"""Adapter folder ("" for the base) and split of each prompt that a model answered during a decision."""


class Week(dg.ConfigurableResource):
    """Data, items and scores of one week, and whether the check on the data passes."""

    data: str
    right: int  # items of ITEMS that the adapter answers correctly; the base answers none
    sealed: int = SEALED_ITEMS  # sealed items that the adapter answers correctly
    good: bool = True
    skipped: int = 0  # number of leading test items that are left out
    base: str = BASE_REVISION

    def items(self) -> pl.DataFrame:
        test = FIRST["test"].slice(self.skipped, ITEMS)
        return pl.concat([test, FIRST["sealed"].head(SEALED_ITEMS)])


@dataclass
class Learned:
    """Answers the first test and sealed items correctly; its weights hold how many."""

    adapter: Path | None
    model: str = "fake"
    revision: str = "1"
    engine: str = "fake 1"
    context_tokens: int = 256

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        return list(messages[-1]["content"].encode())

    encode_user_turn = encode_chat

    def encode_template(self, template: str) -> list[int]:
        return list(template.encode())

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        return [Completion(self.answer(bytes(prompt).decode()), "stop", len(prompt), 7) for prompt in prompts]

    def answer(self, prompt: str) -> str:
        right = load_file(self.adapter / WEIGHTS)["weight"].tolist() if self.adapter else [0, 0]
        split, number = NUMBERS[prompt]
        PROMPTS.append((self.adapter.name if self.adapter else "", split))
        if number >= right[split == "sealed"]:
            return "?"
        task = world.find(prompt)
        assert task is not None
        return good_answer(task, Random(0))


class LearnedInference(Inference):
    """Loads `Learned` models."""

    def engine(self, adapter: Path | None = None) -> str:
        return "fake 1"

    def generator(self, model: ModelRecord, adapter: Path | None = None) -> Any:  # noqa: ANN401
        return Learned(adapter)


@dg.asset
def base_model(week: Week) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        value=ModelRecord("base", "owner/base", week.base, "embedded", 512), data_version=dg.DataVersion(week.base)
    )


@dg.asset
def benchmark_items(week: Week) -> dg.MaterializeResult:
    items = week.items()
    return dg.MaterializeResult(value=items, data_version=dg.DataVersion(content_hash(items)))


@dg.asset
def sft_dataset(week: Week) -> dg.MaterializeResult:
    return dg.MaterializeResult(value=pl.DataFrame({"row": [week.data]}), data_version=dg.DataVersion(week.data))


@dg.asset_check(asset=sft_dataset)
def no_leak(week: Week) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=week.good)


def record(name: str, failure: str = "") -> AdapterRecord:
    return AdapterRecord(
        name,
        "lora",
        "candidate",
        "",
        "",
        "m",
        "",
        "",
        "base",
        BASE_REVISION,
        {"rank": 8},
        {},
        1,
        2,
        3,
        "derived",
        1,
        1,
        0,
        1,
        failure,
    )


@dg.asset
def lora_adapter(
    context: dg.AssetExecutionContext, sft_dataset: pl.DataFrame, week: Week, tracking: MlflowTracking
) -> dg.MaterializeResult:
    key = fingerprint(sft_dataset["row"][0])
    folder = tracking.home.adapters() / key
    folder.mkdir(exist_ok=True)
    save_file({"weight": np.array([week.right, week.sealed], np.float32)}, folder / WEIGHTS)
    write_manifest(folder, {})
    trained = replace(
        record("lora_adapter"), fingerprint=key, path=f"adapters/{key}", data_versions=upstream_versions(context)
    )
    run_id, version = tracking.tracker(context).log_training(trained, folder, [], {})
    trained = replace(trained, mlflow_run_id=run_id, model_version=version)
    tracking.home.leave_row_manifest(
        "lora_adapter", folder_hash(folder), pl.DataFrame({"row_id": [week.data], "fate": ["train"]})
    )
    return dg.MaterializeResult(value=trained, data_version=dg.DataVersion(folder_hash(folder)))


def failed_adapter(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def adapter() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=record(name, "out of luck"), data_version=dg.DataVersion("failed"))

    return adapter


def rows(model: str, key: str, right: int, items: pl.DataFrame) -> list[tuple[object, ...]]:
    return [
        (model, key, SUITE, "test", item, cluster, metric, float(n < right), "", "stop")
        for n, (item, cluster) in enumerate(items.filter(split="test").select("item_id", "cluster").iter_rows())
        for metric in SUITES[SUITE].metrics
    ]


def measured(scores: pl.DataFrame, items: pl.DataFrame) -> list[Metric]:
    return metrics(scores, engines={"base": "fake 1", "lora_adapter": "fake 1"}, data_hash=content_hash(items))


@dg.asset
def benchmark_scores(
    context: dg.AssetExecutionContext,
    lora_adapter: AdapterRecord,
    benchmark_items: pl.DataFrame,
    week: Week,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    items = rows("base", "r", 0, benchmark_items)
    items += rows("lora_adapter", lora_adapter.fingerprint, week.right - week.skipped, benchmark_items)
    scores = pl.DataFrame(items, schema=ITEM_SCORES, orient="row")
    values = measured(scores, benchmark_items)
    tracking.tracker(context).log_scores(values, scores, {"lora_adapter": lora_adapter.model_version})
    return dg.MaterializeResult(value=scores, data_version=dg.DataVersion(content_hash(scores)))


@dg.asset
def comparison(benchmark_scores: pl.DataFrame, benchmark_items: pl.DataFrame) -> dg.MaterializeResult:
    value = Comparison(measured(benchmark_scores, benchmark_items), [], "lora_adapter", {})
    return dg.MaterializeResult(value=value, data_version=dg.DataVersion("c"))


@dg.asset_check(asset=comparison)
def metrics_are_complete(comparison: Comparison) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=bool(comparison.metrics))


ASSETS = [
    base_model,
    benchmark_items,
    sft_dataset,
    lora_adapter,
    *(failed_adapter(name) for name in ADAPTERS if name != "lora_adapter"),
    benchmark_scores,
    comparison,
    promotion_decision,
    champion,
]
CHECKS = [no_leak, metrics_are_complete]


@dataclass
class Deployment:
    """A home, an instance and what runs on them."""

    home: SynthHome
    instance: dg.DagsterInstance

    @property
    def tracker(self) -> MlflowTracker:
        return MlflowTracking(home=self.home).tracker()

    def run(self, week: Week, selection: dg.AssetSelection | None = None, **options: object) -> Decision:
        resources = {
            "week": week,
            "home": self.home,
            "tracking": MlflowTracking(home=self.home),
            "inference": LearnedInference(hardware=Hardware(tier="cpu")),
            "evidence": CheckResults.of([*ASSETS, *CHECKS]),
            "io_manager": AssetStorage(home=self.home),
        }
        job = dg.define_asset_job("job", selection or dg.AssetSelection.all())
        definitions = dg.Definitions(ASSETS, asset_checks=CHECKS, jobs=[job], resources=resources)
        config = dg.RunConfig(ops={"promotion_decision": PromotionConfig(**options)})  # pyright: ignore[reportArgumentType]
        resolved = definitions.resolve_job_def("job")
        done = resolved.execute_in_process(instance=self.instance, run_config=config, tags={"by": "ada"})
        assert done.success
        decision = self.home.record("promotion_decision", Decision)
        assert decision is not None
        return decision

    def promote(self, **options: object) -> Decision:
        return self.run(Week(data="unused", right=0), dg.AssetSelection.assets(promotion_decision, champion), **options)

    def champion(self) -> ChampionRecord:
        record = self.home.record("champion", ChampionRecord)
        assert record is not None
        assert (self.tracker.alias("champion") or "") == record.version
        return record


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("database")
    MlflowTracking(home=SynthHome(folder=str(folder))).initialise()
    return folder / "mlflow.db"


@pytest.fixture
def deployment(tmp_path: Path, database: Path) -> Iterator[Deployment]:
    home = tmp_path / "home"
    home.mkdir()
    original, copy = sqlite3.connect(database), sqlite3.connect(home / "mlflow.db")
    original.backup(copy)
    copy.execute("UPDATE experiments SET artifact_location = ?", [(home / "mlartifacts").as_uri()])
    copy.commit()
    copy.close()
    original.close()
    with dg.DagsterInstance.ephemeral() as instance:
        yield Deployment(SynthHome(folder=str(home)), instance)


GOOD = Week(data="week 1", right=100)


def failed(decision: Decision) -> list[str]:
    return [clause.name for clause in decision.clauses if not clause.passed]


def actual_of(decision: Decision, clause: str) -> str:
    return next(c.actual for c in decision.clauses if c.name == clause)


def session_of(deployment: Deployment) -> Session:
    session = Session(deployment.home.root(), "cpu")
    session.__dict__["instance"] = deployment.instance
    return session


def champion_words(deployment: Deployment) -> str:
    return " ".join(champion_text(session_of(deployment)).split())


def card_of(deployment: Deployment, version: str) -> str:
    client = deployment.tracker.client
    with TemporaryDirectory() as folder:
        run_id = str(client.get_model_version(MODEL, version).run_id)
        return Path(client.download_artifacts(run_id, CARD, folder)).read_text("utf-8")


def recall_row(deployment: Deployment, row: str, reason: str = "wrong", action: Any = "recalled") -> None:  # noqa: ANN401
    add_recalls(deployment.home.recalls(), [Recall(row, action, reason, "ada", "2026-11-20T12:00:00")])


@pytest.fixture(autouse=True)
def no_prompts_yet() -> None:
    PROMPTS.clear()


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
    foreign = client.create_model_version(MODEL, source=str(deployment.tracker.registered("1").source))
    client.set_registered_model_alias(MODEL, "champion", foreign.version)
    assert "serves version 2 (not registered by an adapter asset)" in champion_words(deployment)
    with pytest.raises(ServiceHistoryError, match=r"has no tag asset.*out of service with synth rollback"):
        deployment.promote()
    deployment.promote(rollback=True)
    assert deployment.champion().version == "1"
