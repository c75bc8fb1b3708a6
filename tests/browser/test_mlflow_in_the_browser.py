"""MLflow in a browser: it opens on the runs, shows a training while it goes, and draws two adapters in one chart."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import polars as pl
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from resources.hardware import TIERS
from synth_assets.cli.ui import free_port
from synth_assets.embedded import model_path
from synth_assets.llm.loading import load_causal_model, load_tokenizer, prepare_libraries
from synth_assets.registry import live_training
from synth_assets.registry.live_training import LiveTraining
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.schemas.records import Metric
from synth_assets.schemas.tables import ITEM_SCORES, TURN
from synth_assets.stats.intervals import estimate
from synth_assets.storage.manifests import content_hash
from synth_assets.training.engine import Trained, TrainingSetup
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import LoraSpec
from tests.support.tracking import CURVE, TAGS, adapter, tracking_of

CHROMIUM = shutil.which("chromium")
TIMEOUT_MS, START_TIMEOUT_S = 60_000.0, 240.0
STORED = '{"mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true", "mlflow.assistant.panelOpen_v1": "false"}'
SPEC = LoraSpec(rank=4, alpha=8, learning_rate=5e-3, epochs=2.0, batch_size=8)
ADAPTERS = ("lora_adapter", "dpo_adapter")
PAUSE_AFTER_STEP = 5  # of 8; the first epoch, with its validation, has 4

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with two registered adapters that have scores on the same items."""
    home = tmp_path_factory.mktemp("home")
    tracker = tracking_of(home).tracker(batch="first")
    versions = {
        name: tracker.log_training(adapter(home / name, name), home / name, CURVE, TAGS)[1] for name in ADAPTERS
    }
    scored = {"dpo_adapter": [1.0, 1.0, 1.0, 0.0], "lora_adapter": [1.0, 1.0, 0.0, 0.0]}
    rows = [
        (name, "f", "qa", "test", f"i{n}", f"c{n}", "strict", score, f"answer {n}", "stop")
        for name in ADAPTERS
        for n, score in enumerate(scored[name])
    ]
    items = pl.DataFrame(rows, schema=ITEM_SCORES, orient="row")
    scores = [metric(items, name) for name in ADAPTERS]
    prompts = pl.DataFrame({"item_id": [f"i{n}" for n in range(4)], "prompt": [f"question {n}" for n in range(4)]})
    tracker.log_answers(tracker.log_scores(scores, items, versions), items, prompts)
    return home


def metric(items: pl.DataFrame, model: str) -> Metric:
    mine = items.filter(model=model)
    score = estimate(mine["score"].to_list(), mine["cluster"].to_list())
    return Metric(
        model=model, suite="qa", split="test", metric="strict", value=score.value, n=score.n, ci_low=score.low,
        ci_high=score.high, interval=score.method, shots=0, harness="verifier", data_hash="d",
        items_sha256=content_hash(items), mlflow_run_id="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def ui(home: Path) -> Iterator[str]:
    """Serve the home's MLflow database; return the address."""
    port = free_port(0)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": tracking_of(home).uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    address, limit = f"http://127.0.0.1:{port}", time.monotonic() + START_TIMEOUT_S
    with (home / "ui.log").open("wb") as log:
        process = subprocess.Popen([*command, "--serve-artifacts"], env=environment, stdout=log, stderr=log)
    try:
        while not answers(f"{address}/health"):
            assert process.poll() is None, (home / "ui.log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    with suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=2, trust_env=False).is_success
    return False


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        page.add_init_script(f"Object.entries({STORED}).forEach(([k, v]) => localStorage.setItem(k, v))")
        yield page
        browser.close()


def test_the_links_of_synth_ui_open_on_runs_and_models(page: Page, ui: str, home: Path) -> None:
    links = tracking_of(home).pages(ui)
    page.goto(links["runs"])
    for name in ADAPTERS:
        expect(page.get_by_role("link", name=f"{name}/2026-W47").first).to_be_visible()
    expect(page.get_by_text("one run per adapter").first).to_be_visible()
    page.goto(links["models"])
    expect(page.get_by_role("link", name="Version 2", exact=True)).to_be_visible()


def test_two_adapters_are_compared_in_one_chart_by_clicking(page: Page, ui: str, home: Path) -> None:
    page.goto(tracking_of(home).pages(ui)["runs"])
    expect(page.get_by_role("link", name="dpo_adapter/2026-W47").first).to_be_visible()
    page.locator("label:has(input[type=radio][value=CHART])").click()
    card = page.locator("div", has_text="qa/test/strict", has=page.locator(".js-plotly-plot")).last
    expect(card.locator(".barlayer .point")).to_have_count(2)


def test_answers_are_traces_with_their_score(page: Page, ui: str, home: Path) -> None:
    runs = tracking_of(home).pages(ui)["runs"]
    page.goto(runs.replace("/runs", "/traces"))
    expect(page.get_by_text("question 0").first).to_be_visible()


class Paused(LiveTraining):
    """A training that waits at a step until the test has seen it."""

    def __init__(self, tracker: MlflowTracker) -> None:
        super().__init__(lambda: tracker, "rejection_sampling_adapter", {"role": "candidate"})
        self.reached, self.go_on = threading.Event(), threading.Event()

    def logged(self, point: Mapping[str, float]) -> None:
        super().logged(point)
        if point["step"] == PAUSE_AFTER_STEP:
            self.reached.set()
            self.go_on.wait(START_TIMEOUT_S)


def train(live: Paused, rows: pl.DataFrame, trained: list[Trained]) -> None:
    tier = TIERS["cpu"]
    prepare_libraries(tier)
    base = load_causal_model(model_path("base"), tier), load_tokenizer(model_path("base"))
    setup = TrainingSetup("an_adapter", "embedded:base", 256, tier, lambda _: None)
    with live:
        live.started("f9", {"rank": 4})
        trained.append(train_lora(base, rows, SPEC, replace(setup, observer=live)))


def training_rows() -> pl.DataFrame:
    """Return 32 rows, 28 of them in the train split."""
    numbers: Sequence[int] = range(32)
    columns = {
        "row_id": [f"r{i}" for i in numbers],
        "history": [[] for _ in numbers],
        "instruction": [f"What is {i} plus 1?" for i in numbers],
        "response": [f"It is {i + 1}." for i in numbers],
        "split": ["validation" if i % 8 == 0 else "train" for i in numbers],
    }
    return pl.DataFrame(columns, schema_overrides={"history": pl.List(TURN)})


@pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes")  # pandas, in MLflow's log_table
def test_a_training_is_watched_while_it_goes(page: Page, ui: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_training, "FLUSH_EVERY_S", 0.1)
    tracker = tracking_of(home).tracker(batch="second")
    live, trained = Paused(tracker), list[Trained]()
    thread = threading.Thread(target=train, args=(live, training_rows(), trained))
    thread.start()
    try:
        assert live.reached.wait(START_TIMEOUT_S)
        link = tracking_of(home).pages(ui)["runs"].replace("/runs", f"/runs/{live.run_id}")
        page.goto(link)
        expect(page.get_by_text("Running", exact=True).first).to_be_visible()
        page.get_by_role("tab", name="Model metrics").click()
        expect(page.get_by_text("learning_rate", exact=True).first).to_be_visible()
        page.get_by_role("tab", name="Artifacts").click()
        expect(page.get_by_text("validation_answers.json").first).to_be_visible()
        assert trained == []
    finally:
        live.go_on.set()
        thread.join()
    assert trained != []
