"""A session in a server that runs for long: what it looks up again, and that the pages share one."""

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from synth_assets.cli import dagster_services
from synth_assets.cli.session import Session, open_session
from tests.support.tracking import tracking_of


def test_a_registry_that_is_created_later_is_found() -> None:
    session = open_session("cpu")
    assert session.tracker is None
    tracking_of(session.home).initialise()
    tracker = session.tracker
    assert tracker is not None
    assert tracker.versions() == {}
    assert session.tracker is tracker


def test_the_pages_of_a_home_share_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Session] = []

    def count(*, read_only: bool) -> Session:
        opened.append(open_session("cpu", read_only=read_only))
        return opened[-1]

    monkeypatch.setattr(dagster_services, "open_session", count)
    with TestClient(dagster_services.with_home_pages(Starlette())) as client:
        for page in ("/home/", "/home/", "/home/rows", "/home/playground"):
            assert client.get(page).status_code == 200, page
    assert len(opened) == 1
