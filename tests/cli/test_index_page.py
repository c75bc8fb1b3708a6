import os
from pathlib import Path

import dagster as dg
import pytest

from synth_assets.cli.index_page import index_html, refresh_index, write_index
from synth_assets.cli.session import Session, open_session
from synth_assets.reporting.document import page


@pytest.fixture
def session(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("SYNTH_HOME", str(own_home / "made"))
    return open_session("cpu")


def test_an_empty_home_has_a_page_that_says_where_to_start(session: Session) -> None:
    text = index_html(session)
    assert "the base model" in text
    assert "<code>synth run</code>" in text
    assert "No check fails (0 pass)." in text
    assert "/home/reports/" not in text  # no report yet
    assert '<a href="/home/rows">' in text
    assert '<a href="/home/playground">' in text


def test_rows_checks_and_links_are_shown_and_escaped(session: Session) -> None:
    report = dg.MetadataValue.url("/home/reports/r1/report.html")
    session.instance.report_runless_asset_event(
        dg.AssetMaterialization("raw_instructions", metadata={"dagster/row_count": 1_536})
    )
    session.instance.report_runless_asset_event(dg.AssetMaterialization("comparison", metadata={"report": report}))
    session.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("filtered_instructions"),
            check_name="enough_instructions_remain",
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description="<b>49</b> instructions left",
        )
    )
    text = index_html(session)
    assert '<td class="n">1,536</td>' in text
    assert '<a href="/home/reports/r1/report.html">' in text
    assert "filtered_instructions: enough_instructions_remain" in text
    assert "&lt;b&gt;49&lt;/b&gt; instructions left" in text
    assert "<b>" not in text


def test_the_page_is_written_once_for_each_run(session: Session) -> None:
    index = write_index(session)
    written = index.stat().st_mtime_ns
    refresh_index()
    assert index.stat().st_mtime_ns == written
    index.unlink()
    refresh_index()
    assert index.is_file()


def test_a_run_that_ended_before_a_newer_one_started_outdates_the_page(session: Session) -> None:
    index = write_index(session)
    instance = session.instance
    job = dg.Definitions(jobs=[dg.define_asset_job("all")], assets=[dg.asset(name="rows")(lambda: None)])
    ended, _ = (instance.create_run_for_job(job.resolve_job_def("all")) for _ in range(2))
    os.utime(index, (0, 0))  # long before both runs
    refresh_index()
    assert index.stat().st_mtime == 0  # neither has ended
    instance.report_run_failed(ended, "killed")
    refresh_index()
    assert index.stat().st_mtime > 0


def test_the_last_report_opens_with_the_facts_of_its_comparison(session: Session) -> None:
    report = session.home / "reports" / "r1" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text(page("Comparison of models", []))
    for asset, metadata in {
        "sft_dataset": {"dagster/row_count": 1_031},
        "comparison": {"report": dg.MetadataValue.url("/home/reports/r1/report.html")},
        "preference_pairs": {"dagster/row_count": 7},  # newer than the comparison
    }.items():
        session.instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))
    write_index(session)
    opened = report.read_text()
    assert "<dt>Rows</dt><dd>1,031 instructions</dd>" in opened
    assert "<dt>Champion</dt><dd>the base model: no version was promoted yet</dd>" in opened
    assert "<dt>Decision</dt><dd>none yet</dd>" in opened
