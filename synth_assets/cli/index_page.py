"""The index page of a home: champion, decisions, failing checks and the data funnel, with links to the rest."""

import datetime as dt
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg

from resources.storage import HOME_PAGES, PLAYGROUND, ROWS
from synth_assets.cli.home_apps import templates
from synth_assets.cli.registry import serving_line
from synth_assets.cli.report_opening import metadata_of, newest_record, write_opening
from synth_assets.cli.session import Session, open_session
from synth_assets.cli.status import last_evaluations
from synth_assets.schemas.records import ChampionRecord, Comparison
from synth_assets.storage.atomic import write_text

INDEX = "index.html"
MAX_DECISIONS = 8
FUNNEL = (
    ("raw_instructions", "generated"),
    ("imported_instructions", "imported"),
    ("filtered_instructions", "kept by the filter"),
    ("sft_dataset", "instructions to train on"),
    ("preference_pairs", "preference pairs"),
    ("benchmark_items", "benchmark items"),
)
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
    return (
        templates()
        .get_template("index.html.jinja")
        .render(
            name=session.home.name if session.home.name != ".synth" else "synth-assets",
            tier=session.tier_name,
            version=version("synth-assets"),
            written=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
            links=list(_links(session)),
            champion=_champion(session),
            funnel=list(_funnel(session.instance)),
            checks=failing,
            passed=passed,
            decisions=list(_decisions(session)),
        )
    )


def refresh_index() -> None:
    """Write the index page of this deployment if a run ended after it was written, and the home is writable."""
    session = open_session(read_only=True)
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
    yield {"text": "MLflow", "url": session.tracking.version_url("").partition("/#")[0]}


def _champion(session: Session) -> dict[str, Any]:
    record = session.record("champion", ChampionRecord)
    line = serving_line(session)
    scores = record.scores if record else {}
    return {
        "serves": line.partition(" since ")[0],
        "since": _moment(record.moved_at) if record and record.moved_at else "",
        "because": record.reason if record else "",
        "scores": [{"name": name, "value": value} for name, value in _values(scores)],
    }


def _values(scores: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each test score among the score tags of a version."""
    from synth_assets.stages.promotion.model_card import attached_scores

    for score in attached_scores(scores):
        if score.split == "test":
            yield f"{score.suite} {score.metric} (n {score.facts['n']})", f"{score.facts['value']:.3f}"


def _funnel(instance: dg.DagsterInstance) -> Iterator[dict[str, str]]:
    for asset, name in FUNNEL:
        metadata = metadata_of(newest_record(instance, asset))
        rows = metadata.get("dagster/row_count")
        if rows is None:
            continue
        note = metadata.get(NOTES.get(asset, ""))
        yield {"name": name, "rows": f"{rows:,}", "note": _note(NOTES.get(asset, ""), note)}


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
                "url": f"/assets/{asset}?view=checks",
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
            f"{facts.get('decision')}: {facts.get('judged')}"
            if kept
            else (f"{facts.get('action')}: {facts.get('from')} to {facts.get('to')}")
        )
        scores: Any = facts.get("serves_scores") or {}
        score = scores.get(deciding) if isinstance(scores, dict) else None
        yield {
            "when": _moment(dt.datetime.fromtimestamp(record.timestamp, dt.UTC).isoformat()),
            "what": what,
            "batch": str(facts.get("serves_batch", "")),
            "score": f"{score:.3f}" if isinstance(score, float) else "",
            "reason": str(facts.get("reason", "")),
            "url": f"/runs/{record.run_id}",
        }


def _moment(at: str) -> str:
    return f"{at[:16].replace('T', ' ')} UTC"
