"""Report files: numbers link to their evidence, texts are escaped, and nothing is loaded from elsewhere."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from synth_assets.evals.comparison import compare
from synth_assets.evals.scoring import metrics
from synth_assets.reporting.training_figures import Training
from synth_assets.schemas.records import AdapterRecord, Comparison
from synth_assets.schemas.serialization import from_json
from synth_assets.stages.evaluation.overlap import without_overlap
from synth_assets.stages.evaluation.report import SUMMARY_COLUMNS, sections, write_report
from synth_assets.stages.evaluation.report_data import ReportData, gather
from synth_assets.stages.evaluation.report_trainings import costs_of
from synth_assets.stages.evaluation.trainings import Trace, traces
from synth_assets.storage.manifests import write_manifest

pytestmark = pytest.mark.integration

HOSTILE = '<script>alert("x")</script> | [a](http://evil.example) \x1b[31m'
FAILURE = "the loss was <b>NaN</b> at step 2"
FILES = {
    "benchmark_comparison.png",
    "tradeoff_analysis.png",
    "model_comparison.png",
    "efficiency_comparison.png",
    "sft_training_curves.png",
    "dpo_training_curves.png",
    "filtering_stats.png",
    "summary.csv",
    "report.json",
    "report.md",
    "report.html",
}


def url(run_id: str) -> str:
    return f"http://127.0.0.1:5000/#/experiments/1/runs/{run_id}"


@pytest.fixture
def data(items: pl.DataFrame, adapters: list[AdapterRecord], scored: Callable[..., pl.DataFrame]) -> ReportData:
    trained = [replace(adapter, mlflow_run_id=f"training-{adapter.name}") for adapter in adapters]
    trained[-1] = replace(trained[-1], failure=FAILURE)
    better = dict.fromkeys((adapter.name for adapter in trained[:-1]), [1.0] * 18 + [0.0] * 2)
    scores = scored({"base": [1.0] * 4 + [0.0] * 16, **better})
    engines = dict.fromkeys(scores["model"].unique(), "typed")
    found = [replace(m, mlflow_run_id="scores-run") for m in metrics(scores, engines=engines, data_hash="data")]
    result = compare(found, scores, items, trained)
    result = replace(
        result,
        without_overlap=without_overlap(found, scores, [scores["item_id"][-1]]),
        win_rates=[replace(found[-1], metric="win_rate", value=0.625, harness="reward model toy")],
        samples=[{"prompt": HOSTILE, "before": "", "after": "one\ntwo", "before_score": "0", "after_score": "1"}],
    )
    gathered = gather(result, trained, (scores, items), url)
    stored = [trace(adapter) for adapter in trained if not adapter.failure]
    return replace(gathered, traces=stored, fates={"kept": 2, "echo": 1}, kept_scores=[0.5, 1.0])


def trace(adapter: AdapterRecord) -> Trace:
    """Return a training of two steps."""
    curve = [{"step": float(n), "loss": 1.0 / n, "learning_rate": 1e-4, "reward_margin": 1.0} for n in (1, 2)]
    return Trace(adapter, Training(adapter.name, curve), size_bytes=2**20, tokens=100)


def test_all_files_are_written_and_equal_data_gives_equal_files(data: ReportData, tmp_path: Path) -> None:
    assert set(write_report(data, tmp_path / "one")) == FILES
    write_report(data, tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES


def test_the_record_and_the_summary_hold_every_metric(data: ReportData, tmp_path: Path) -> None:
    write_report(data, tmp_path)
    assert from_json(Comparison, (tmp_path / "report.json").read_text("utf-8")) == data.comparison
    table = pl.read_csv(tmp_path / "summary.csv")
    assert tuple(table.columns) == SUMMARY_COLUMNS
    metrics_ = [*data.comparison.metrics, *data.comparison.win_rates]
    assert table.rows() == [tuple(getattr(m, name) for name in SUMMARY_COLUMNS) for m in metrics_]


def test_each_value_links_to_its_run_and_failures_and_null_models_have_rows(data: ReportData, tmp_path: Path) -> None:
    write_report(data, tmp_path)
    page, text = ((tmp_path / f"report.{kind}").read_text("utf-8") for kind in ("html", "md"))
    test_base = next(m for m in data.comparison.metrics if (m.model, m.split) == ("base", "test"))
    assert (test_base.value, test_base.n) == (0.2, 20)
    low, high = f"{test_base.ci_low:.3f}", f"{test_base.ci_high:.3f}"
    assert f'<a href="{url("scores-run")}">0.200</a></td><td>{low} to {high}</td><td class="number">20</td>' in page
    assert f"| base | [0.200]({url('scores-run')}) | {low} to {high} | 20 |" in text
    assert f'<a href="{url("training-lora_adapter")}">' in page
    assert "<td>DPO control</td><td colspan" in page
    assert "failed: the loss was &lt;b&gt;NaN&lt;/b&gt; at step 2" in page
    assert "<td>answer: echo</td>" in page


class Loaded(HTMLParser):
    """Tags of a page, and the addresses that a browser fetches without a click."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attrs if name in {"src", "srcset", "data", "poster"}]


def test_the_page_is_self_contained_and_texts_are_escaped(data: ReportData, tmp_path: Path) -> None:
    write_report(data, tmp_path)
    page, text = ((tmp_path / f"report.{kind}").read_text("utf-8") for kind in ("html", "md"))
    loaded = Loaded()
    loaded.feed(page)
    pictures = [name for name in FILES if name.endswith(".png")]
    one_panel = {"benchmark_comparison.png"}  # of one suite: the same on a phone
    assert len(loaded.fetched) == 2 * len(pictures) - len(one_panel)
    assert all(source.startswith("data:image/png;base64,") for source in loaded.fetched)
    assert not loaded.tags & {"script", "link", "iframe", "object"}
    assert "url(" not in page
    assert "@import" not in page
    assert "\x1b" not in page + text
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in page
    assert "<script" not in text
    assert r"\[a\](http://evil.example)" in text  # brackets that are escaped make no link
    for name in (name for name in FILES if name.endswith(".png")):
        assert Image.open(io.BytesIO((tmp_path / name).read_bytes())).width > 300
        assert f"]({name})" in text


def test_sections_without_data_are_left_out(data: ReportData) -> None:
    titles = [section.title for section in sections(data)]
    assert titles == [
        "Recommendations",
        "Scores",
        "Training cost",
        "Training curves",
        "Paired tests",
        "Minimum detectable effect",
        "Without overlap",
        "Win rate",
        "Answer style",
        "Filtering",
        "Before and after",
    ]
    bare = replace(data.comparison, tests=[], without_overlap=[], win_rates=[], samples=[])
    nothing = replace(data, comparison=bare, detectable=[], profiles=[], traces=[], fates={}, kept_scores=[])
    less = [section.title for section in sections(nothing)]
    assert less == ["Recommendations", "Scores", "Training cost"]


def test_a_report_where_every_adapter_failed(data: ReportData, tmp_path: Path) -> None:
    base = [m for m in data.comparison.metrics if m.model == "base"]
    failures = {adapter.name: FAILURE for adapter in data.adapters}
    nothing = Comparison(metrics=base, tests=[], candidate="", failures=failures)
    failed = [replace(adapter, failure=FAILURE) for adapter in data.adapters]
    names = write_report(replace(data, comparison=nothing, adapters=failed, traces=[]), tmp_path)
    assert not {name for name in names if name.startswith(("tradeoff", "efficiency", "sft", "dpo"))}
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "There is no candidate." in page
    assert len(re.findall("failed: the loss", page)) == 3 * 5  # two tables of scores, one of costs


def test_costs_that_are_not_known_for_every_method_have_no_panel(data: ReportData) -> None:
    known = list(costs_of(data))
    assert known == [
        "trained parameters",
        "size on disk in MiB",
        "training seconds from the base model",
        "peak memory of training in MiB (derived)",
        "training tokens/s, without padding",
        "tokens trained on from the base model",
    ]
    lost = [replace(data.traces[0], size_bytes=0, tokens=0, problem="its folder is gone"), *data.traces[1:]]
    assert list(costs_of(replace(data, traces=lost))) == [known[0], *known[2:5]]
    paid = [replace(adapter, cost_usd=0.5) for adapter in data.adapters]
    assert list(costs_of(replace(data, adapters=paid)))[-1] == "USD from the base model"
    one_measured = [replace(data.adapters[0], peak_memory_kind="measured"), *data.adapters[1:]]
    assert not any("memory" in name for name in costs_of(replace(data, adapters=one_measured)))


def test_costs_include_the_adapters_that_an_adapter_was_trained_from(data: ReportData) -> None:
    from_lora = [
        replace(adapter, data_versions={"lora_adapter": "v"} if adapter.name == "dpo_adapter" else {}, cost_usd=0.25)
        for adapter in data.adapters
    ]
    found = costs_of(replace(data, adapters=from_lora))
    assert found["USD from the base model"]["dpo_adapter"] == 0.5
    assert found["USD from the base model"]["lora_adapter"] == 0.25
    assert found["training seconds from the base model"]["dpo_adapter"] == 2.0
    free = [replace(adapter, cost_usd=0.0) for adapter in from_lora]
    assert costs_of(replace(data, adapters=free))["tokens trained on from the base model"]["dpo_adapter"] == 200
    assert "dpo_control_adapter" not in found["trained parameters"]


def test_trainings_without_a_curve_are_listed_and_the_others_drawn(data: ReportData, tmp_path: Path) -> None:
    first, second, *others = data.adapters
    old, damaged = tmp_path / first.path, tmp_path / second.path
    for folder in (old, damaged):
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"12345")
        write_manifest(folder, {"name": "trained by an older version"})
    (damaged / "adapter_model.safetensors").write_bytes(b"54321")
    found = traces([first, second, replace(others[0], failure=FAILURE)], tmp_path)
    assert [(trace.adapter.name, trace.size_bytes) for trace in found] == [(first.name, 5), (second.name, 0)]
    assert "adapter_model.safetensors does not match manifest.json" in found[1].problem
    assert str(tmp_path) not in found[1].problem
    rest = [trace for trace in data.traces if trace.adapter.name not in (first.name, second.name)]
    names = write_report(replace(data, traces=[*found, *rest]), tmp_path / "report")
    assert {"sft_training_curves.png", "dpo_training_curves.png"} <= set(names)
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "prompt tuning has no curve: the code version that trained it did not store one." in page
    assert "LoRA has no curve: adapters/lora_adapter/adapter_model.safetensors does not match" in page
