"""Both UIs in a browser: materialise a batch, see the promoted version, a failed check, and the index page."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DEPLOYMENT = Path(__file__).parents[1] / "support" / "small_deployment.py"
WORKSPACE = f"load_from:\n  - python_file: {{relative_path: {DEPLOYMENT}, location_name: synth_assets}}\n"
BATCH = "by-hand"
FIRST_TRAINED, CHECKED, LEAKAGE = "lora_adapter", "sft_dataset", "no_leakage_between_splits"
RUN_TIMEOUT_S = 400.0  # 50 s on an idle machine with two cores
PAGE_TIMEOUT_MS = 30_000.0

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


class Ui(Protocol):
    """A running `synth ui`, from conftest.py."""

    home: Path
    dagster: str
    mlflow: str

    def graphql(self, query: str, **variables: str) -> dict[str, Any]: ...


@pytest.fixture(scope="module")
def ui(
    start_ui: Callable[[Path, Path], AbstractContextManager[Ui]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("ui")
    (folder / "workspace.yaml").write_text(WORKSPACE)
    with start_ui(folder / "home", folder) as ui:
        yield ui


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(PAGE_TIMEOUT_MS)
    return page


def launches(response: Response) -> bool:
    return "/graphql" in response.url and '"launch' in response.text()


def launched_run(response: Response) -> str:
    """Return the run id in the response to a mutation that launches one or several runs."""
    (launched,) = [value for name, value in response.json()["data"].items() if name.startswith("launch")]
    runs = launched.get("launchMultipleRunsResult", [launched])
    assert len(runs) == 1, launched
    return runs[0]["run"]["id"]


def wait_for(ui: Ui, run_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until `reached` returns True or the run has finished; return the run."""
    limit = time.monotonic() + RUN_TIMEOUT_S
    query = """query ($run: ID!) {runOrError(runId: $run) {... on Run {
        status tags {key value} assetMaterializations {assetKey {path} runId}}}}"""
    while True:
        run = ui.graphql(query, run=run_id)["runOrError"]
        if reached(run) or run["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
            return run
        assert time.monotonic() < limit, run["status"]
        time.sleep(0.5)


def materialised(run: dict[str, Any]) -> set[str]:
    return {event["assetKey"]["path"][0] for event in run["assetMaterializations"]}


def registry_page(page: Page, ui: Ui) -> str:
    """Return the text of the page of the registered model, once it shows the versions."""
    page.goto(f"{ui.mlflow}/#/models/synth-instruct")
    page.reload()
    expect(page.get_by_role("link", name="Version 1", exact=True)).to_be_visible()
    return page.locator("body").inner_text().replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def run_id(ui: Ui, page: Page) -> str:
    """Launch the job `pipeline` in the browser for a batch that is added in the dialog; return the run id."""
    page.goto(f"{ui.dagster}/jobs")
    page.get_by_role("link", name="pipeline").click()
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("button", name="Confirm").click()  # adapters outside the job were never trained
    page.get_by_role("button", name="Add a partition").click()
    adding = page.get_by_role("dialog").last
    adding.get_by_role("textbox").fill(BATCH)
    adding.get_by_role("button", name="Save").click()
    with page.expect_response(launches) as answer:
        page.get_by_role("button", name="Launch 1 run").click()
    return launched_run(answer.value)


@pytest.fixture(scope="module")
def registry_before(ui: Ui, page: Page, run_id: str) -> str:
    """Return the text of the registry page after the first adapter is registered and before the evaluation."""
    wait_for(ui, run_id, lambda run: FIRST_TRAINED in materialised(run))
    words = registry_page(page, ui)
    assert "promotion_decision" not in materialised(wait_for(ui, run_id, lambda _: True))
    return words


@pytest.fixture(scope="module")
def ended_run(ui: Ui, run_id: str, registry_before: str) -> dict[str, Any]:
    assert registry_before
    return wait_for(ui, run_id, lambda _: False)


def test_each_asset_of_the_job_is_materialised_by_the_run(ui: Ui, ended_run: dict[str, Any], run_id: str) -> None:
    assert ended_run["status"] == "SUCCESS"
    assert {"key": "dagster/partition", "value": BATCH} in ended_run["tags"]
    assert {"key": "trigger", "value": "ui"} in ended_run["tags"]
    nodes = ui.graphql("{assetNodes {assetKey {path} jobNames assetMaterializations(limit: 1) {runId}}}")["assetNodes"]
    latest = {
        node["assetKey"]["path"][0]: [event["runId"] for event in node["assetMaterializations"]]
        for node in nodes
        if "pipeline" in node["jobNames"]
    }
    assert {"raw_instructions", "sft_dataset", "dpo_adapter", "champion"} < latest.keys()
    assert latest == {asset: [run_id] for asset in latest}


def test_the_page_of_the_run_shows_success(ui: Ui, ended_run: dict[str, Any], run_id: str, page: Page) -> None:
    assert ended_run["status"] == "SUCCESS"
    page.goto(f"{ui.dagster}/runs/{run_id}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()


def test_the_registry_has_a_champion_after_the_run_and_not_before(
    ui: Ui, ended_run: dict[str, Any], registry_before: str, page: Page
) -> None:
    assert ended_run["status"] == "SUCCESS"
    assert "@ champion" not in registry_before
    decided = ui.graphql("""{assetOrError(assetKey: {path: ["promotion_decision"]}) {... on Asset {
        assetMaterializations(limit: 1) {metadataEntries {label ... on TextMetadataEntry {text}}}}}}""")
    (materialisation,) = decided["assetOrError"]["assetMaterializations"]
    texts = {entry["label"]: entry.get("text") for entry in materialisation["metadataEntries"]}
    assert texts["outcome"] == "promoted", texts["reason"]
    assert "@ champion" in registry_page(page, ui)


@pytest.fixture(scope="module")
def failed_check(ui: Ui, ended_run: dict[str, Any], page: Page) -> str:
    """Plant a training row among the validation rows and execute the checks; return the address of the failed one."""
    assert ended_run["status"] == "SUCCESS"
    table = ui.home / "tables" / f"{CHECKED}.parquet"
    rows = pl.read_parquet(table)
    planted = rows.filter(pl.col("split") == "train").head(1).with_columns(split=pl.lit("validation"))
    check = f"{ui.dagster}/assets/{CHECKED}?view=checks&checkDetail={LEAKAGE}"
    page.goto(check)
    expect(page.get_by_text("Passed", exact=True)).to_be_visible()

    pl.concat([rows, planted.cast(dict(rows.schema))]).write_parquet(table)
    with page.expect_response(launches) as answer:
        page.get_by_role("button", name="Execute", exact=False).last.click()
    wait_for(ui, launched_run(answer.value), lambda _: False)
    return check


def test_a_check_fails_on_bad_data(failed_check: str, page: Page) -> None:
    page.goto(failed_check)
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()


def test_a_newcomer_finds_champion_row_and_check_from_the_index_page(ui: Ui, failed_check: str, page: Page) -> None:
    """No question takes more than three clicks; who serves and why takes none."""
    assert failed_check
    page.goto(f"{ui.dagster}/home/")
    expect(page.locator("strong")).to_contain_text(", version ")
    expect(page.locator("#because")).to_contain_text("Promoted by")
    expect(page.locator("#because")).to_contain_text("against the base model")

    page.get_by_role("link", name="rejected, with reasons").click()
    page.locator("#list li").first.click()
    expect(page.locator("#why")).to_contain_text("rejected: ")

    page.get_by_role("link", name="Home").click()
    page.get_by_role("link", name=f"{CHECKED}: {LEAKAGE}").click()
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
