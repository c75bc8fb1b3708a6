"""The index page of a home: champion, decisions, failing checks and the data funnel, with links to the rest."""

import datetime as dt
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg

from resources.storage import HOME_PAGES, PLAYGROUND, ROWS
from synth_assets.cli.home_apps import html
from synth_assets.cli.moments import moment
from synth_assets.cli.registry import serving_line
from synth_assets.cli.report_opening import metadata_of, newest_record, write_opening
from synth_assets.cli.session import Session
from synth_assets.cli.status import last_evaluations
from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.records import BASE, ChampionRecord, Comparison
from synth_assets.storage.atomic import write_text

INDEX = "index.html"
MAX_DECISIONS = 8
FUNNEL = (  # asset, name, and the table of the rows page that shows it or the view of the asset
    ("raw_instructions", "generated", f"{ROWS}?table=raw"),
    ("imported_instructions", "imported", "/assets/imported_instructions"),
    ("filtered_instructions", "kept by the filter", f"{ROWS}?table=kept"),
    ("rejected_instructions", "rejected, with reasons", f"{ROWS}?table=rejected"),
    ("sft_dataset", "instructions to train on", "/assets/sft_dataset"),
    ("preference_pairs", "preference pairs", f"{ROWS}?table=pairs"),
    ("benchmark_items", "benchmark items", "/assets/benchmark_items"),
)
EVIDENCE = ("effect", "significance")  # clauses of the policy that say why a version serves
NOTES: Mapping[str, str] = {
    "filtered_instructions": "pass_rate",
    "sft_dataset": "validation_rows",
    "preference_pairs": "validation_rows",
}


def write_index(session: Session) -> Path:
    """Write the index page of the session's home, and the opening of the last report; return the path of the page."""
    target = session.home / INDEX
    write_opening(session)
    write_text(target, index_html(session))
    return target


def index_html(session: Session) -> str:
    """Return the index page; every text in it is escaped."""
    failing, passed = _checks(session.instance)
    return html(
        "index.html.jinja",
        name=session.home.name if session.home.name != ".synth" else "synth-assets",
        tier=session.tier_name,
        version=version("synth-assets"),
        written=moment(time.time()),
        links=list(_links(session)),
        champion=_champion(session),
        funnel=list(_funnel(session.instance)),
        checks=failing,
        passed=passed,
        decisions=list(_decisions(session)),
    )


def refresh_index(session: Session) -> None:
    """Write the index page of the session's home if a run ended after it was written, and the home is writable."""
    if session.copied_databases is None and _is_outdated(session):
        write_index(session)


def _is_outdated(session: Session) -> bool:
    page = session.home / INDEX
    if not page.is_file():
        return True
    written = dt.datetime.fromtimestamp(page.stat().st_mtime, dt.UTC)
    changed = session.instance.get_run_records(dg.RunsFilter(updated_after=written))
    return any((record.end_time or 0.0) > page.stat().st_mtime for record in changed)


def _links(session: Session) -> Iterator[dict[str, str]]:
    report = metadata_of(newest_record(session.instance, "comparison")).get("report", "")
    if str(report).startswith(HOME_PAGES):
        yield {"text": "Report of the last comparison", "url": str(report)}
    yield {"text": "Rows", "url": ROWS}
    yield {"text": "Playground", "url": PLAYGROUND}
    yield {"text": "Asset graph", "url": "/asset-groups"}
    yield {"text": "Runs", "url": "/runs"}
    yield {"text": "Automation", "url": "/automation"}
    card = metadata_of(newest_record(session.instance, "dataset_card")).get("page", "")
    if str(card).startswith(HOME_PAGES):
        yield {"text": "Dataset card", "url": str(card)}
    if session.tracking.exists():
        yield {"text": "Runs in MLflow", "url": session.tracking.runs_url()}
        yield {"text": "Models in MLflow", "url": session.tracking.version_url("")}


def _champion(session: Session) -> dict[str, Any]:
    record = session.record("champion", ChampionRecord)
    if record is None or not record.version:
        return {"serves": serving_line(session), "url": "", "facts": "", "because": "", "clauses": [], "scores": []}
    evidence = [clause.actual for clause in record.clauses if clause.name in EVIDENCE]
    against = f"against {_served(record.previous_version)}" if evidence else ""
    reason = f"{record.action} by {record.moved_by}: {record.reason}"
    return {
        "serves": f"{display_name(record.name)}, version {record.version}",
        "url": session.tracking.version_url(record.version),
        "facts": f"batch {record.batch or 'unknown'}, since {moment(record.moved_at)}",
        "because": "; ".join(filter(None, [reason, ", ".join([*evidence, against]) if evidence else ""])),
        "clauses": record.clauses,
        "scores": list(_values(record.scores)),
    }


def _served(version: object) -> str:
    """Return the name of what served or serves: "version 3", or "the base model"."""
    return f"version {version}" if version and version != BASE else "the base model"


def _values(scores: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield each test score among the score tags of a version, with its interval and number of items."""
    from synth_assets.stages.promotion.model_card import attached_scores

    for score in attached_scores(scores):
        if score.split == "test":
            facts = score.facts
            yield {
                "name": f"{score.suite}, {score.metric}",
                "value": f"{facts['value']:.3f}",
                "interval": f"{facts['ci_low']:.3f} to {facts['ci_high']:.3f}",
                "n": f"{facts['n']:,}",
            }


def _funnel(instance: dg.DagsterInstance) -> Iterator[dict[str, str]]:
    for asset, name, url in FUNNEL:
        metadata = metadata_of(newest_record(instance, asset))
        rows = metadata.get("dagster/row_count")
        if rows is None:
            continue
        note = metadata.get(NOTES.get(asset, ""))
        yield {"name": name, "url": url, "rows": f"{rows:,}", "note": _note(NOTES.get(asset, ""), note)}


def _note(kind: str, value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:.0%} pass" if kind == "pass_rate" else f"{value:,} of them for validation"


def _checks(instance: dg.DagsterInstance) -> tuple[list[dict[str, str]], int]:
    """Return the checks whose last evaluation failed, and how many passed."""
    from synth_assets.definitions import defs

    failing, passed = [], 0
    for key, evaluation in last_evaluations(instance, defs().resolve_asset_graph().asset_check_keys).items():
        if evaluation.passed:
            passed += 1
            continue
        asset = key.asset_key.to_user_string()
        severity = "error" if evaluation.severity is dg.AssetCheckSeverity.ERROR else "warning"
        failing.append(
            {
                "severity": severity,
                "asset": asset,
                "name": key.name,
                "description": evaluation.description or "",
                "url": f"/assets/{asset}?view=checks&checkDetail={key.name}",
            }
        )
    return sorted(failing, key=lambda check: (check["severity"], check["asset"])), passed


def _decisions(session: Session) -> Iterator[dict[str, str]]:
    """Yield the last decisions, each with the serving version's score on the suite that decides."""
    comparison = session.record("comparison", Comparison)
    deciding = (
        f"{comparison.tests[0].suite} test {comparison.tests[0].metric}" if comparison and comparison.tests else ""
    )
    for record in session.instance.fetch_materializations(dg.AssetKey("champion"), limit=MAX_DECISIONS).records:
        facts = metadata_of(record)
        kept = facts.get("action") == "kept"
        what = (
            f"{facts.get('decision')}: {_served(facts.get('judged'))}"
            if kept
            else f"{facts.get('action')}: {_served(facts.get('to'))} replaces {_served(facts.get('from'))}"
        )
        scores: Any = facts.get("serves_scores") or {}
        score = scores.get(deciding) if isinstance(scores, dict) else None
        yield {
            "when": moment(record.timestamp),
            "what": what,
            "batch": str(facts.get("serves_batch", "")),
            "score": f"{score:.3f}" if isinstance(score, float) else "",
            "reason": str(facts.get("reason", "")),
            "url": f"/runs/{record.run_id}",
        }
