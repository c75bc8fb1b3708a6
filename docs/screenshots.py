"""Take README's pictures from the UIs that `synth ui` has open, after a run: `python docs/screenshots.py`.

Needs Playwright and chromium; writes docs/images/*.png.
"""

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from resources.deployment import home_folder

IMAGES = Path(__file__).with_name("images")
VIEW = ViewportSize(width=1400, height=800)
COLOURS = 256
SETTLED_MS = 3_000  # graphs and plots are drawn after the data is there
STORED = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",  # else its panel takes a third of the page
    "mlflow.assistant.panelOpen_v1": "false",
}


def settle(page: Page) -> None:
    """Wait until the page is drawn."""
    page.wait_for_timeout(SETTLED_MS)


def graph(page: Page, dagster: str, _: str) -> None:
    """Show the assets around the teacher's responses with their state and checks."""
    page.goto(f"{dagster}/assets/response_candidates?view=lineage&lineageScope=neighbors&lineageDepth=1")
    page.get_by_role("button", name="Hide navigation").click()
    page.reload()
    settle(page)
    settle(page)  # the asset in the middle is filled in last


def checks(page: Page, dagster: str, _: str) -> None:
    """Show one check of an asset with its description and result."""
    page.goto(f"{dagster}/assets/sft_dataset?view=checks&checkDetail=no_leakage_between_splits")
    page.get_by_text("Evaluation result").wait_for()
    settle(page)


def run(page: Page, dagster: str, _: str) -> None:
    """Show the newest run of the pipeline with its steps and events."""
    newest = '{runsOrError(limit: 1, filter: {pipelineName: "pipeline"}) {... on Runs {results {id}}}}'
    answer = page.request.post(f"{dagster}/graphql", data={"query": newest}).json()
    page.goto(f"{dagster}/runs/{answer['data']['runsOrError']['results'][0]['id']}")
    settle(page)


def automation(page: Page, dagster: str, _: str) -> None:
    """Show the schedules and sensors with their switches."""
    page.goto(f"{dagster}/automation")
    page.get_by_text("retraining").first.wait_for()
    settle(page)


def batches(page: Page, dagster: str, _: str) -> None:
    """Show the batches of generated instructions, one partition each, and the metadata of the first."""
    page.goto(f"{dagster}/assets/raw_instructions?view=partitions")
    page.get_by_text("first", exact=True).first.click()
    settle(page)


def decision(page: Page, dagster: str, _: str) -> None:
    """Show the newest decision with expected and actual value of each clause."""
    page.goto(f"{dagster}/assets/promotion_decision?view=events")
    settle(page)


def index(page: Page, dagster: str, _: str) -> None:
    """Show the index page of the home."""
    page.goto(f"{dagster}/home/")
    page.get_by_role("heading", name="Champion").wait_for()


def rows(page: Page, dagster: str, _: str) -> None:
    """Show rejected rows, and the reason of the second."""
    page.goto(f"{dagster}/home/rows?table=rejected")
    page.locator("#list li").nth(1).click()
    page.locator("#why").get_by_text("rejected: ").wait_for()


def report(page: Page, _: str, __: str) -> None:
    """Show the top of the newest report of `comparison`."""
    newest = max((home_folder() / "reports").glob("*/report.html"), key=lambda path: path.stat().st_mtime)
    page.goto(newest.as_uri())
    settle(page)


def registry(page: Page, _: str, mlflow: str) -> None:
    """Show the serving version with the evidence in its tags."""
    alias = f"{mlflow}/api/2.0/mlflow/registered-models/alias?name=synth-instruct&alias=champion"
    version = page.request.get(alias).json()["model_version"]["version"]
    page.goto(f"{mlflow}/#/models/synth-instruct/versions/{version}?workflowType=machine_learning")
    page.get_by_text("champion", exact=False).first.wait_for()
    page.evaluate("document.body.style.zoom = 0.75")  # at full size long run names cover the word Aliases
    settle(page)


PICTURES: dict[str, Callable[[Page, str, str], None]] = {
    "graph": graph,
    "checks": checks,
    "run": run,
    "automation": automation,
    "batches": batches,
    "index": index,
    "rows": rows,
    "report": report,
    "decision": decision,
    "registry": registry,
}


def save(picture: bytes, name: str) -> None:
    """With a palette: a third of the bytes, and the page looks the same."""
    image = Image.open(BytesIO(picture)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


def main() -> None:
    """Visit each page and write its picture."""
    urls = json.loads((home_folder() / "ui.json").read_text("utf-8"))
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW)
        page.add_init_script(f"Object.entries({json.dumps(STORED)}).forEach(([k, v]) => localStorage.setItem(k, v))")
        for name, visit in PICTURES.items():
            visit(page, urls["dagster"], urls["mlflow"])
            save(page.screenshot(), name)
        browser.close()


if __name__ == "__main__":
    main()
