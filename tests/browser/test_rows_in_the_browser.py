"""The rows page in a browser: keys select and decide, and texts of rows never run as code."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import uvicorn
from playwright.sync_api import Page, expect, sync_playwright
from starlette.applications import Starlette

from resources.storage import SynthHome
from synth_assets.cli.home_apps import HomeApps
from synth_assets.cli.request_guard import RequestGuard, allowed_hosts
from synth_assets.cli.rows_page import RowsPage
from synth_assets.cli.session import open_session
from synth_assets.cli.ui import free_port
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.storage.reviews import review_log

CHROMIUM = shutil.which("chromium")
ATTACK = '<img src=x onerror="document.title=1"><script>document.title = "attacked"</script>'
START_TIMEOUT_S, TIMEOUT_MS = 60.0, 60_000.0

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


@pytest.fixture
def home(own_home: Path) -> SynthHome:
    home = SynthHome(folder=str(own_home))
    (home.tables() / "raw_instructions").mkdir()
    rows = [
        {"row_id": f"row{n}", "source": "magpie", "batch": "b", "instruction": f"{ATTACK} {n}", "response": "Yes."}
        for n in range(3)
    ]
    pl.DataFrame(rows, schema=INSTRUCTIONS).write_parquet(home.tables() / "raw_instructions" / "b.parquet")
    fates = pl.DataFrame({"row_id": [row["row_id"] for row in rows], "fate": "kept"})
    home.leave_row_manifest("filtered_instructions", "v", fates)
    return home


@pytest.fixture
def address(home: SynthHome) -> Iterator[str]:
    assert home.root().is_dir()
    session, port = open_session("cpu"), free_port(0)
    app = RequestGuard(HomeApps(Starlette(), RowsPage(lambda: session).routes()), allowed_hosts(port))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + START_TIMEOUT_S
    while not server.started:
        assert time.monotonic() < limit
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/home/rows"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        yield page
        browser.close()


def test_rows_are_judged_with_keys(page: Page, address: str, home: SynthHome) -> None:
    page.goto(address)
    expect(page.locator("#count")).to_have_text("3 rows")
    page.keyboard.press("j")
    expect(page.locator("#why")).to_contain_text("magpie, batch b")
    expect(page.locator("#texts")).to_contain_text(ATTACK)

    page.keyboard.press("r")
    expect(page.locator("#row-0")).to_have_attribute("data-verdict", "reject")
    expect(page.locator("#row-1")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#message")).to_contain_text("Stored: reject")

    page.keyboard.press("e")
    page.locator("#editing [name=response]").fill("No.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#row-1")).to_have_attribute("data-verdict", "edit")
    page.keyboard.press("k")
    expect(page.locator("#row-1")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#reviews")).to_contain_text("edited by")

    reviews = [(each.row_id, each.verdict, each.response) for each in review_log(home.reviews())]
    assert reviews == [("row0", "reject", None), ("row1", "edit", "No.")]
    assert page.title() == "Rows: Raw"
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
