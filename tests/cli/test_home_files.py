from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from synth_assets.cli.home_files import HomeFiles


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in (
        "index.html",
        "reports/r1/report.html",
        "reports/r1/scores.csv",
        "tables/base_model.json",
        "mlflow.db",
    ):
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "outside.html").write_text("outside")
    (tmp_path / "home" / "reports" / "link.html").symlink_to(tmp_path / "outside.html")
    return tmp_path / "home"


@pytest.fixture
def refreshed() -> list[str]:
    return []


@pytest.fixture
def client(home: Path, refreshed: list[str]) -> TestClient:
    app = Starlette(routes=[Route("/{rest:path}", lambda _: PlainTextResponse("Dagster"))])
    return TestClient(HomeFiles(app, home, lambda: refreshed.append("index")))


def test_pages_of_the_home_are_served_without_rights(client: TestClient, refreshed: list[str]) -> None:
    index = client.get("/home/")
    assert (index.status_code, index.text, refreshed) == (200, "index.html", ["index"])
    assert index.headers["content-security-policy"].startswith("default-src 'none'")
    report = client.get("/home/reports/r1/report.html")
    assert (report.status_code, report.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert client.get("/home/reports/r1/scores.csv").text == "reports/r1/scores.csv"
    assert refreshed == ["index"]


@pytest.mark.parametrize(
    "name",
    [
        "tables/base_model.json",  # no page
        "mlflow.db",
        "reports/../mlflow.db",
        "reports/%2e%2e/%2e%2e/outside.html",
        "reports/link.html",  # leads out of the home
        "reports/missing.html",
        "reports",
    ],
)
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    response = client.get(f"/home/{name}")
    assert response.status_code == 404
    assert "outside" not in response.text.replace("outside.html", "")


def test_the_rest_goes_to_the_ui(client: TestClient) -> None:
    assert client.get("/assets").text == "Dagster"
    assert client.post("/home/index.html").status_code == 404


def test_a_card_is_a_page(client: TestClient, home: Path) -> None:
    card = home / "cards" / "sft_dataset" / "v1" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("---\nlicense: mit\n---\n# sft_dataset v1\n\n| a | b |\n|---|---|\n| <script>1</script> | 2 |\n")
    answer = client.get("/home/cards/sft_dataset/v1/README.md")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>sft_dataset v1</title>" in answer.text
    assert "<td>&lt;script&gt;1&lt;/script&gt;</td>" in answer.text
    assert "license" not in answer.text
