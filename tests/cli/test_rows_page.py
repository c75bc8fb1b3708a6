"""The rows page by HTTP: what it shows, what it stores, and what it refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from resources.storage import SynthHome
from synth_assets.cli.home_apps import HomeApps
from synth_assets.cli.request_guard import RequestGuard, allowed_hosts
from synth_assets.cli.rows_page import RowsPage, recall_row, review_ids
from synth_assets.cli.session import open_session
from synth_assets.schemas.tables import INSTRUCTIONS, JUDGED, REJECTED
from synth_assets.storage.reviews import review_log

ATTACK = "<script>alert(1)</script>"
JSON = {"Content-Type": "application/json"}


def row(row_id: str, **columns: object) -> dict[str, object]:
    texts = {"instruction": f"{ATTACK} {row_id}", "response": f"Answer {row_id}"}
    return {"row_id": row_id, "source": "magpie", "batch": "first", "history": [], **texts, **columns}


@pytest.fixture
def home(own_home: Path) -> SynthHome:
    home = SynthHome(folder=str(own_home))
    tables = home.tables()
    (tables / "raw_instructions").mkdir()
    rows = [row("aa11"), row("bb22"), row("cc33", history=[{"role": "system", "content": "Be brief."}])]
    pl.DataFrame(rows, schema=INSTRUCTIONS).write_parquet(tables / "raw_instructions" / "first.parquet")
    pl.DataFrame([row("aa11", score=0.5)], schema=JUDGED).write_parquet(tables / "filtered_instructions.parquet")
    rejected = [row("bb22", reason="echo", detail="1"), row("cc33", reason="personal_data", detail="2")]
    pl.DataFrame(rejected, schema=REJECTED).write_parquet(tables / "rejected_instructions.parquet")
    home.leave_row_manifest("filtered_instructions", "v", pl.DataFrame({"row_id": ["aa11"], "fate": ["kept"]}))
    return home


@pytest.fixture
def recalls() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def client(home: SynthHome, recalls: list[tuple[str, str]]) -> Iterator[TestClient]:
    def recall(row_id: str, reason: str) -> str:
        if row_id == "zz":
            raise ValueError("no row 'zz'")
        recalls.append((row_id, reason))
        return "done"

    assert home.root().is_dir()
    ui = Starlette(routes=[Route("/{rest:path}", lambda _: PlainTextResponse("Dagster"))])
    app = HomeApps(ui, RowsPage(lambda: open_session("cpu"), recall).routes())
    with TestClient(RequestGuard(app, allowed_hosts(80)), base_url="http://localhost") as client:
        yield client


def decide(client: TestClient, row_id: str, verdict: str, by: str = "ada", **fields: object) -> dict[str, Any]:
    response = client.post("/home/rows/reviews", json={"row_id": row_id, "verdict": verdict, "by": by, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_page_escapes_texts_and_may_run_its_own_scripts_only(client: TestClient) -> None:
    response = client.get("/home/rows?table=kept")
    assert response.status_code == 200
    assert "&lt;script&gt;alert(1)&lt;/script&gt; aa11" in response.text
    assert ATTACK not in response.text
    policy = response.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "bb22" not in response.text


def test_scripts_and_styles_come_from_the_package(client: TestClient) -> None:
    for name in ("pages.css", "pages.js", "rows.js"):
        assert client.get(f"/home/static/{name}").status_code == 200
    assert client.get("/home/static/../home_apps.py").text == "Dagster"
    assert client.get("/home/static/%2e%2e/home_apps.py").status_code == 404


def test_the_rest_goes_to_the_ui(client: TestClient) -> None:
    for path in ("/", "/home/", "/home/rowsx", "/assets/rows"):
        assert client.get(path).text == "Dagster"


def test_search_filter_and_count(client: TestClient) -> None:
    page = client.get("/home/rows?table=rejected&reason=echo").text
    assert ("bb22" in page, "cc33" in page) == (True, False)
    summary = client.get("/home/rows/summary?table=rejected&q=answer CC33").json()
    assert summary["rows"] == 1
    assert summary["choices"]["reason"] == [["echo", 1], ["personal_data", 1]]


@pytest.mark.parametrize("query", ["table=secrets", "page=0", "page=x", "page=99999999999"])
def test_a_wrong_address_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/home/rows?{query}").status_code == 400


def test_a_row_shows_all_texts_and_why(client: TestClient) -> None:
    shown = client.get("/home/rows/row?table=raw&key=cc33").json()
    assert shown["texts"][0] == ["system", "Be brief."]
    assert shown["texts"][2] == ["response", "Answer cc33"]
    assert ["source", "magpie"] in shown["facts"]
    assert "kept, score 0.50" in client.get("/home/rows/why?row=aa11").json()["why"]
    response = client.get("/home/rows/why?row=zz")
    assert (response.status_code, "no row 'zz'" in response.json()["error"]) == (400, True)
    assert client.get("/home/rows/row?table=raw&key=zz").status_code == 400


def test_a_decision_is_stored_with_author_time_and_note(client: TestClient, home: SynthHome) -> None:
    decide(client, "aa11", "edit", note="typo\n", response="Better.")
    (stored,) = review_log(home.reviews())
    assert (stored.row_id, stored.verdict, stored.by, stored.note) == ("aa11", "edit", "ada", "typo")
    assert (stored.instruction, stored.response) == (None, "Better.")
    assert stored.at.endswith("+00:00")


def test_decisions_of_others_are_hidden_until_the_own_one(client: TestClient) -> None:
    decide(client, "aa11", "reject", note="wrong")
    client.cookies.set("synth_reviewer", "ben")
    assert client.get("/home/rows/row?table=raw&key=aa11").json()["reviews"] == []
    assert 'data-verdict="reject"' not in client.get("/home/rows").text
    assert "by ada" not in client.get("/home/rows/why?row=aa11").json()["why"]
    answer = decide(client, "aa11", "keep", "ben")
    assert [line[:16] for line in answer["reviews"]] == ["rejected by ada ", "kept by ben on 2"]
    assert answer["agreement"] == ["ada and ben: kappa 0.00, 0 of 1 rows alike (0%)"]
    page = client.get("/home/rows?table=raw&review=disagreed").text
    assert ('data-verdict="keep"' in page, "bb22" in page) == (True, False)


def test_a_keep_that_changes_nothing_is_said(client: TestClient) -> None:
    assert decide(client, "bb22", "keep")["warning"] == ""
    assert "does not override personal_data" in decide(client, "cc33", "keep")["warning"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"row_id": "aa11", "verdict": "maybe"}, "verdict must be one of"),
        ({"row_id": "aa11", "verdict": "edit"}, "an edit needs"),
        ({"row_id": 5, "verdict": "keep"}, "row_id must be a text, got int"),
        ({"row_id": "a", "verdict": "keep", "note": "password=hunter2hunter2"}, "must not contain a secret"),
        ({"row_id": "a", "verdict": "edit", "response": "x" * 100_001}, "at most 100,000 characters"),
        (["aa11"], "must be a JSON object, got list"),
    ],
)
def test_a_wrong_decision_is_refused(client: TestClient, home: SynthHome, body: object, message: str) -> None:
    response = client.post("/home/rows/reviews", json=body)
    assert (response.status_code, message in response.json()["error"]) == (400, True), response.text
    assert review_log(home.reviews()) == []


def test_a_long_body_is_not_read(client: TestClient) -> None:
    response = client.post("/home/rows/reviews", content=b'"' + b"x" * 1_000_001 + b'"', headers=JSON)
    assert "at most 1,000,000 bytes" in response.json()["error"]


def test_other_sites_and_forms_cannot_decide(client: TestClient, home: SynthHome) -> None:
    body = {"row_id": "aa11", "verdict": "reject", "by": "foe"}
    assert client.post("/home/rows/reviews", json=body, headers={"Origin": "http://foe.example"}).status_code == 403
    assert client.post("/home/rows/reviews", data={"row_id": "aa11"}).status_code == 415
    assert client.get("/home/rows/reviews").status_code == 405
    assert review_log(home.reviews()) == []


def test_a_recall_needs_a_reason_and_names_the_reviewer(client: TestClient, recalls: list[tuple[str, str]]) -> None:
    response = client.post("/home/rows/recall", json={"row_id": "aa11", "reason": " ", "by": "ada"})
    assert response.json()["error"] == "a recall needs a row and a reason"
    assert client.post("/home/rows/recall", json={"row_id": "aa11", "reason": "wrong", "by": "ada"}).json() == {
        "text": "done"
    }
    assert recalls == [("aa11", "wrong (by ada on the rows page)")]
    failed = client.post("/home/rows/recall", json={"row_id": "zz", "reason": "wrong"})
    assert (failed.status_code, failed.json()["error"]) == (400, "no row 'zz'")


def test_the_command_of_a_recall_reports_its_error(home: SynthHome) -> None:
    assert home.root().is_dir()
    with pytest.raises(ValueError, match="no row '--undo'"):
        recall_row("--undo", "wrong")


@pytest.mark.parametrize(
    ("choice", "only", "without"),
    [
        ("", None, set()),
        ("open", None, {"r1", "r2"}),
        ("mine", {"r1", "r2"}, set()),
        ("second", {"r3"}, set()),
        ("disagreed", {"r2"}, set()),
    ],
)
def test_the_choice_of_reviews_gives_the_rows(choice: str, only: set[str] | None, without: set[str]) -> None:
    verdicts = {
        "r1": {"ada": "keep", "ben": "keep"},
        "r2": {"ada": "keep", "ben": "reject"},
        "r3": {"ben": "keep", "cid": "reject"},
    }
    assert review_ids(verdicts, "ada", choice) == (only if only is None else frozenset(only), frozenset(without))
