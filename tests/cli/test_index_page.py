import os
from pathlib import Path

import dagster as dg
import pytest

from synth_assets.cli.index_page import index_html, refresh_index, write_index
from synth_assets.cli.session import Session, open_session


@pytest.fixture
def session(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("SYNTH_HOME", str(own_home / "made"))
    return open_session("cpu")


def test_an_empty_home_has_a_page_that_says_where_to_start(session: Session) -> None:
    page = index_html(session)
    assert "the base model" in page
    assert "<code>synth run</code>" in page
    assert "No check fails (0 pass)." in page
    assert "/home/reports/" not in page  # no report yet
    assert '<a href="/home/rows">' in page
    assert '<a href="/home/playground">' in page


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
    page = index_html(session)
    assert '<td class="n">1,536</td>' in page
    assert '<a href="/home/reports/r1/report.html">' in page
    assert "filtered_instructions: enough_instructions_remain" in page
    assert "&lt;b&gt;49&lt;/b&gt; instructions left" in page
    assert "<b>" not in page


def test_the_page_is_written_once_for_each_run(session: Session) -> None:
    page = write_index(session)
    written = page.stat().st_mtime_ns
    refresh_index()
    assert page.stat().st_mtime_ns == written
    page.unlink()
    refresh_index()
    assert page.is_file()


def test_a_run_that_ended_before_a_newer_one_started_outdates_the_page(session: Session) -> None:
    page = write_index(session)
    instance = session.instance
    job = dg.Definitions(jobs=[dg.define_asset_job("all")], assets=[dg.asset(name="rows")(lambda: None)])
    ended, _ = (instance.create_run_for_job(job.resolve_job_def("all")) for _ in range(2))
    os.utime(page, (0, 0))  # long before both runs
    refresh_index()
    assert page.stat().st_mtime == 0  # neither has ended
    instance.report_run_failed(ended, "killed")
    refresh_index()
    assert page.stat().st_mtime > 0
