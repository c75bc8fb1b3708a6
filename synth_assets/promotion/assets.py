"""Assets of the stage promotion: the decision with its clauses, and the version that serves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from getpass import getuser

import dagster as dg
import polars as pl

from resources.evidence import Evidence, adapter_versions, json_metadata, upstream_versions
from resources.inference import Inference
from resources.model_turns import model_turn
from resources.model_versions import adapter_record, attach_card, model_version, restore_adapter, runs_with
from resources.registry import MlflowTracker
from resources.step_meter import step_meter
from resources.storage import Home
from resources.tracking import MlflowTracking
from synth_assets.benchmarks.suite import SEALED
from synth_assets.evaluation.assets import subject_of
from synth_assets.evaluation.scoring import EvaluationSpec, Subject
from synth_assets.lineage import LineageError, recalled_rows_of
from synth_assets.manifests import ManifestError, content_hash
from synth_assets.promotion.contenders import CHALLENGER, CHAMPION, Scores, compared_candidate, contender
from synth_assets.promotion.examination import Examiner, WeightsError
from synth_assets.promotion.model_card import model_card
from synth_assets.promotion.policy import Contender, PromotionPolicy, outcome_version
from synth_assets.promotion.succession import Occasion, SuccessionError, evidence_tags, rollback_decision, succeed
from synth_assets.promotion.trial import judge
from synth_assets.recalls import recalls_in_force, taint_text
from synth_assets.records import (
    ADAPTERS,
    BASE,
    AdapterRecord,
    ChampionRecord,
    Clause,
    Comparison,
    Decision,
    Metric,
    ModelRecord,
    Verdict,
    fingerprint,
)
from synth_assets.text_samples import escaped, first_sections

LAST_OF_ALL = {"dagster/priority": "-100"}  # the other ready steps go first, the checks of the same run among them
MEASURED_BY = ("comparison", "benchmark_scores", "benchmark_items", "base_model")
SEALED_TAG = "sealed_items"  # of the MLflow runs that hold scores on them: which sealed items
ADAPTER_INS = {name: dg.AssetIn(dagster_type=AdapterRecord) for name in ADAPTERS}


class PromotionConfig(dg.Config):
    """What a person asks of one decision; without anything the comparison's candidate is judged."""

    version: str | None = None  # judge this version instead of the comparison's candidate
    approve: bool = False  # the person's yes to it
    rollback: bool = False  # back to the version that was champion before
    adopt: bool = False  # judge the version that @champion was moved to by hand, against the recorded one
    minimum_effect: float | None = None
    alpha: float | None = None

    def policy(self) -> PromotionPolicy:
        """The policy with this run's overrides."""
        given = {"minimum_effect": self.minimum_effect, "alpha": self.alpha}
        return replace(PromotionPolicy(), **{name: value for name, value in given.items() if value is not None})


@dg.asset(
    ins=ADAPTER_INS,
    group_name="promotion",
    kinds={"mlflow", "json"},
    owners=["team:evaluation"],
    code_version=fingerprint(PromotionPolicy()),
    op_tags=LAST_OF_ALL,
)
def promotion_decision(
    context: dg.AssetExecutionContext,
    config: PromotionConfig,
    comparison: Comparison,
    benchmark_scores: pl.DataFrame,
    benchmark_items: pl.DataFrame,
    base_model: ModelRecord,
    inference: Inference,
    tracking: MlflowTracking,
    evidence: Evidence,
    **adapters: AdapterRecord,
) -> dg.MaterializeResult:
    """Whether the best adapter becomes the champion, with each clause of the policy and what was found."""
    tracker, occasion = tracking.tracker(context), _occasion(context)
    verdicts: list[Verdict] = []
    behind: dict[str, str] = {}
    card = ""
    if config.rollback:
        decision = rollback_decision(tracker, occasion.who)
    else:
        recorded = tracking.home.record(CHAMPION, ChampionRecord)
        candidate, opponent = _contenders(tracker, config, occasion, comparison, list(adapters.values()), recorded)
        candidate = candidate and _with_taint(candidate, tracker, tracking.home)
        opponent = _with_taint(opponent, tracker, tracking.home)
        spec = _spec(context, inference, content_hash(benchmark_scores))
        examiner = _examiner(context, (inference, tracking), base_model, benchmark_items, spec)
        scores = Scores(tracker, benchmark_scores, comparison, examiner)
        if candidate:
            behind = _versions_behind(context, tracker, candidate, scores)
            verdicts = evidence.verdicts(context, behind)
        decision = judge(candidate, opponent, scores, verdicts, config.policy())
        if candidate and candidate.version and candidate.role == "candidate" and not config.adopt:
            tracker.set_alias(CHALLENGER, candidate.version, evidence_tags(decision, occasion, _counts(verdicts)))
            card = _carded(tracker, decision, verdicts, behind)
    return dg.MaterializeResult(
        value=decision,
        data_version=dg.DataVersion(outcome_version(decision)),
        metadata={
            "outcome": decision.outcome,
            "reason": decision.reason,
            "clauses": dg.MetadataValue.md(_clause_table(decision.clauses)),
            "checks": dg.MetadataValue.json(_counts(verdicts)),
            "policy": dg.MetadataValue.json(asdict(config.policy())),
            **({"model_card": dg.MetadataValue.md(first_sections(card))} if card else {}),
            **_link(tracking, decision.candidate_version),
        },
    )


@dg.asset(group_name="promotion", kinds={"mlflow", "json"}, owners=["team:evaluation"])
def champion(
    context: dg.AssetExecutionContext, promotion_decision: Decision, tracking: MlflowTracking
) -> dg.MaterializeResult:
    """The version that serves: `@champion` of the registered model, moved where the decision says so."""
    with tracking.lock("promotion"):
        before, occasion = tracking.home.record(CHAMPION, ChampionRecord), _occasion(context)
        record = succeed(tracking.tracker(context), promotion_decision, before, occasion)
    if record.flagged:
        context.log.warning(f"@champion was moved by hand to version {record.version}: {record.reason}")
    return dg.MaterializeResult(
        value=record,
        data_version=dg.DataVersion(fingerprint(record.version, record.fingerprint)),
        metadata={
            "action": record.action,
            "from": record.previous_version or BASE,
            "to": record.version or BASE,
            "who": record.moved_by,
            "when": record.moved_at,
            "flagged": record.flagged,
            "decision": promotion_decision.outcome,
            "judged": promotion_decision.candidate_version or "none",
            "asked_by": occasion.who,
            "reason": record.reason,
            **_link(tracking, record.version),
        },
    )


def _contenders(
    tracker: MlflowTracker,
    config: PromotionConfig,
    occasion: Occasion,
    comparison: Comparison,
    adapters: Sequence[AdapterRecord],
    recorded: ChampionRecord | None,
) -> tuple[Contender | None, Contender]:
    serving = tracker.alias(CHAMPION) or ""
    approved_by = occasion.who if config.approve else ""
    try:
        if config.adopt:
            candidate = contender(tracker, serving) if serving else None
            return candidate, contender(tracker, recorded.version if recorded else "")
        opponent = contender(tracker, serving)
        if config.version:
            return contender(tracker, config.version, approved_by), opponent
    except KeyError as error:
        raise SuccessionError(f"{error.args[0]}: `synth status` lists the versions there are") from error
    return compared_candidate(tracker, comparison, adapters, approved_by), opponent


def _with_taint(one: Contender, tracker: MlflowTracker, home: Home) -> Contender:
    """The contender with the recalled rows it was trained on, also where nobody tagged its version: it may be newer.

    Where its row manifest is missing nothing can clear it of a recall.
    """
    recalls = recalls_in_force(home.recalls())
    if one.tainted or not one.version or recalls.is_empty():
        return one
    try:
        rows = recalled_rows_of(home.manifests(), model_version(tracker, one.version), recalls)
    except LineageError as error:
        return replace(one, tainted=str(error))
    return replace(one, tainted=taint_text(rows))


def _spec(context: dg.AssetExecutionContext, inference: Inference, scores_version: str) -> EvaluationSpec:
    """How today's scores were made, as their asset says; else as the tier would make them."""
    told = json_metadata(context.instance, "benchmark_scores", scores_version, "spec")
    return EvaluationSpec(**told) if told else inference.hardware.spec(EvaluationSpec())


def _examiner(
    context: dg.AssetExecutionContext,
    resources: tuple[Inference, MlflowTracking],
    base: ModelRecord,
    items: pl.DataFrame,
    spec: EvaluationSpec,
) -> Examiner:
    inference, tracking = resources
    sealed = {SEALED_TAG: content_hash(items.filter(split=SEALED))}
    tracker = tracking.tracker(context)

    def subject(one: Contender) -> Subject:
        if not one.version:
            return subject_of(inference, tracking.home, base, None)
        try:
            return _adapted(tracker, inference, tracking.home, base, one.version)
        except (LineageError, ManifestError) as error:
            raise WeightsError(
                f"version {one.version} has to be asked and cannot be: {error}. Bring its files back, or take it out "
                "of service: synth rollback"
            ) from error

    def keep(one: Contender, found: list[Metric], scores: pl.DataFrame) -> None:
        asked = sealed if found[0].split == SEALED else {}
        told = tracking.tracker(context, **asked)
        told.log_scores(found, scores, {found[0].model: one.version} if one.version else {})

    return Examiner(
        items=items,
        spec=spec,
        folder=tracking.home.shards("evaluation"),
        subject=subject,
        keep=keep,
        models_asked=lambda: runs_with(tracker, sealed),
        turn=lambda: model_turn(context),
        progress=context.log.info,
        budget=step_meter(context, inference.hardware.row()).budget,
    )


def _adapted(tracker: MlflowTracker, inference: Inference, home: Home, base: ModelRecord, version: str) -> Subject:
    """A version as a model that can be asked; files that are gone here are fetched from the registry.

    Raises:
        LineageError: it belongs to another base, or its files are nowhere.
    """
    record = adapter_record(tracker, version)
    if record.base_revision != base.revision:
        raise LineageError(f"it was trained on {record.base} {record.base_revision}, the base is now {base.revision}")
    try:
        return subject_of(inference, home, base, record)
    except ManifestError:
        restore_adapter(tracker, version, home.root() / record.path)
        return subject_of(inference, home, base, record)


def _versions_behind(
    context: dg.AssetExecutionContext, tracker: MlflowTracker, candidate: Contender, scores: Scores
) -> dict[str, str]:
    """Data versions of the candidate, of all that made it, and of what measured it today."""
    if not candidate.version:
        return {}
    registered = model_version(tracker, candidate.version)
    own, manifest = registered.data_version, registered.data_versions
    versions = {**adapter_versions(context.instance, candidate.name, own), **manifest, candidate.name: own}
    if scores.has(candidate):
        measured = {n: v for n, v in upstream_versions(context).items() if n in MEASURED_BY}
        versions |= {n if versions.get(n, v) == v else f"{n}@{v}": v for n, v in measured.items()}
    return versions


def _carded(tracker: MlflowTracker, decision: Decision, verdicts: Sequence[Verdict], behind: Mapping[str, str]) -> str:
    """The model card of the version that was judged, attached to it."""
    version = decision.candidate_version
    card = model_card(
        adapter_record(tracker, version), tracker.version_tags(version), decision, _counts(verdicts), behind
    )
    attach_card(tracker, version, card)
    return card


def _occasion(context: dg.AssetExecutionContext) -> Occasion:
    tags = context.run.tags
    who = tags.get("by") or tags.get("trigger") or getuser()
    return Occasion(who, datetime.now(UTC).isoformat(), context.run.run_id)


def _counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return dict(Counter(verdict.status for verdict in verdicts))


def _clause_table(clauses: Sequence[Clause]) -> str:
    rows = [f"| {c.name} | {'yes' if c.passed else 'no'} | {escaped(c.found)} | {escaped(c.wanted)} |" for c in clauses]
    return "\n".join(["| clause | held | found | wanted |", "|---|---|---|---|", *rows])


def _link(tracking: MlflowTracking, version: str) -> dict[str, dg.MetadataValue]:
    return {"mlflow": dg.MetadataValue.url(tracking.version_url(version))} if version else {}
