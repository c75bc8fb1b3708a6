"""User mistakes: every command exits with code 2 and prints a one-line error with the remedy, no traceback.

The commands run in this process and share one empty home.
"""

import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from synth_assets.cli import app
from synth_assets.cli import preview as preview_command
from synth_assets.cli import run as run_command

RUN = ("run", "--yes")
SET = (*RUN, "--set")


@dataclass(frozen=True)
class Result:
    """Exit code and output of a command."""

    code: int
    out: str
    error: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", autouse=True)
def one_job() -> Iterator[None]:
    """Build the definitions once instead of in each `synth run`."""
    job = functools.cache(run_command.pipeline_job)
    with mock.patch.object(run_command, "pipeline_job", job), mock.patch.object(preview_command, "pipeline_job", job):
        yield


def synth(
    arguments: Sequence[str],
    home: Path,
    capsys: pytest.CaptureFixture[str],
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Run a command in this process."""
    variables = {"SYNTH_HOME": str(home), "SYNTH_TIER": "cpu", **(environment or {})}
    with mock.patch.dict(os.environ, variables), mock.patch.object(sys, "argv", ["synth", *arguments]):
        for name in ("DAGSTER_HOME", "SYNTH_PRESET"):
            if name not in variables:
                os.environ.pop(name, None)
        with pytest.raises(SystemExit) as ended:
            app.main()
    out, error = capsys.readouterr()
    return Result(ended.value.code if isinstance(ended.value.code, int) else 1, out, error)


def refused(result: Result, expected: str) -> None:
    assert result.code == 2, result
    assert "Traceback" not in result.out + result.error
    lines = result.error.splitlines()
    assert len(lines) == 1, result.error
    assert expected in lines[0]
    assert lines[0].startswith("synth: ")
    assert "unexpected error" not in lines[0]
    assert lines[0].isprintable()


OPTIONS = [
    (["nope"], "No such command 'nope'"),
    (["--nope"], "No such option: --nope"),
    (["run", "--nope"], "See `synth run --help`"),
    (["run", "--sample", "3"], "--samples"),
    (["run", "--samples"], "--samples"),
    (["run", "extra"], "extra"),
    ([*RUN, "--samples", "many"], "integer"),
    ([*RUN, "--samples", "1.5"], "integer"),
    ([*RUN, "--samples", "-3"], "--samples must be 0 to 100,000,000, got -3"),
    ([*RUN, "--max-minutes", "0"], "max_minutes must be above 0, got 0"),
    ([*RUN, "--max-cost", "-2"], "max_cost must be above 0, got -2"),
    ([*RUN, "--max-cost", "2"], "got one at 0 USD an hour; use --max-minutes"),
    ([*RUN, "--set", "benchmark_items.suites=[world_instructions, domain]"], "no file domain.jsonl in"),
    (["plan", "--samples", "-5"], "--samples must be 0 to 100,000,000, got -5"),
    (["plan", "--samples", "100000001"], "got 100,000,001"),
    (["plan", "--tier", "h900"], "unknown tier 'h900'; expected auto, cpu"),
    (["plan", "--tier", ""], "tier"),
    ([*RUN, "--tier", "h100"], "needs an NVIDIA GPU"),
    (["models", "--tier", "h900"], "h900"),
    (["preview", "--samples", "-1"], "--samples must be"),
    (["preview", "--batch", "my batch"], "no batch can be named 'my batch'"),
    (["preview", "--set", "lora_adapter.rank=3"], "must be a setting of raw_instructions in a preview"),
    (["preview", "--set", "raw_instructions.sampels=3"], "sampels"),
    (["preview", "--set", "raw_instructions.samples=many"], "samples"),
    (["preview", "--set", "raw_instructions.top_p=1.4"], "top_p"),
    (["ask"], "Missing argument 'question'"),
    (["ask", ""], "the question is empty"),
    (["ask", "What?"], "synth run"),
    (["ask", "What?", "--seed", "x"], "integer"),
    (["ask", "What?", "--seed", "-1"], "--seed must be 0 to 4,294,967,295, got -1"),
    (["why"], "Missing argument 'row'"),
    (["why", "abc"], "abc"),
    (["trace"], "Missing argument 'version'"),
    (["trace", "99"], "nothing was registered yet; run `synth run` first"),
    (["trace", "nope"], "synth run"),
    (["champion"], "synth run"),
    (["rollback"], "nothing was promoted yet"),
    (["promote", "99"], "synth run"),
    (["promote", "@challenger"], "synth run"),
    ([*RUN, "--max-minutes", "-1"], "max_minutes must be above 0, got -1"),
    ([*RUN, "--max-minutes", "long"], "--max-minutes"),
    ([*RUN, "--max-cost", "nan"], "max_cost must be above 0, got nan"),
    (["trace", "1", "--export", "rows.txt"], "rows.txt"),
    (["export", "1"], "Missing argument 'folder'"),
    (["export", "1", "out"], "nothing was registered yet; run `synth run` first"),
    (["export", "1", "out", "--to", "onnx"], "--to must be one of merged, gguf, ollama, hub, got 'onnx'"),
    (["export", "1", "out", "--dtype", "int8"], "dtype must be one of float16, bfloat16, got 'int8'"),
    (
        ["export", "1", "out", "--to", "gguf", "--quantisation", "q3"],
        "quantisations must be some of f16, q8_0, q4_k_m, got q3",
    ),
    (["export", "1", "out", "--to", "ollama", "--quantisation", "q3"], "smallest-good, got 'q3'"),
    (["export", "1", "out", "--repository", "a/b"], "--repository is an option of --to hub"),
    (["export", "1", "out", "--to", "hub", "--repository", "a"], "repository must be owner/name, got 'a'"),
    (["recall", "abc"], "abc"),
    (["history", "--limit", "0"], "--limit"),
    (["history", "--limit", "x"], "integer"),
    (["history", "--limit", "99999999999999999999"], "--limit must be 1 to 100,000"),
    (["history"], "synth run"),
    (["scoreboard"], "synth run"),
    (["scoreboard", "--write"], "synth run"),
    (["study", "--seeds", "0"], "[1, 5]"),
    (["study", "--seeds", "6"], "[1, 5]"),
    (["study", "--ranks", "four"], "four"),
    (["study", "--ranks", "4,5"], "rank 5"),
    (["study"], "synth run"),
    (["batches", "--remove", "frist"], "batch 'frist' does not exist; the batches are none"),
    (["batches", "--remove"], "--remove"),
    (["embedded", "nope"], "nope"),
    (["ui", "--port", "3000"], "--port"),
    (["webserver", "--workspace", "none.yaml", "--port", "99999"], "--port must be 1 to 65,535, got 99,999"),
    (["webserver", "--workspace", "none.yaml"], "--workspace must be a workspace.yaml file, got none.yaml"),
    (["import"], "Missing argument 'source'"),
    (["import", "no-such-file.jsonl"], "no-such-file.jsonl"),
    (["import", "hub:nope"], "nope"),
    ([*RUN, "--select", "nope nope"], "nope nope"),
    ([*RUN, "--select", "key:nope"], "nope"),
    ([*RUN, "--select", "key:("], "key:("),
    ([*RUN, "--select", ""], "--select"),
]
SETTINGS = [
    ("raw_instructions", "expects asset.field=value, got 'raw_instructions'"),
    ("raw_instructions.samples", "expects asset.field=value"),
    ("samples=3", "expects asset.field=value"),
    ("=3", "expects asset.field=value"),
    ("raw_instructions.samples=", "has no value"),
    ("raw_instructions.samples=[x", "raw_instructions.samples: '[x' is not valid YAML"),
    ("raw_instructions.topics=a: b: c", "is not valid YAML"),
    ("raw_instructions.topics=*a", "is not valid YAML"),
    ("raw_instructions.samples=!!python/object:os.system x", "is not valid YAML"),
    ("raw_instruction.samples=3", "no such asset; did you mean raw_instructions?"),
    ("loraadapter.rank=3", "did you mean lora_adapter?"),
    ("raw_instructions.sampels=3", "no such field; did you mean samples?"),
    ("lora_adapter.learning_rte=2e-4", "did you mean learning_rate?"),
    ("dataset_card.rows=3", "dataset_card has no settings"),
    ("raw_instructions.samples=many", "raw_instructions.samples must be a whole number, got 'many'"),
    ("raw_instructions.samples=2.5", "raw_instructions.samples must be a whole number, got 2.5"),
    ("lora_adapter.learning_rate=fast", "lora_adapter.learning_rate must be a number, got 'fast'"),
    ("lora_adapter.rank=-1", "lora_adapter.rank must be above 0, got -1"),
    ("lora_adapter.learning_rate=.inf", "lora_adapter.learning_rate must be finite, got inf"),
    ("filtered_instructions.min_words=-1", "filtered_instructions.min_words must be between 0 and inf, got -1"),
    ("promotion_decision.approve=perhaps", "promotion_decision.approve must be true or false, got 'perhaps'"),
    ("raw_instructions.topic_weights={a: b}", "must be a number, got 'b'"),
    ("benchmark_items.suites=mmlu", "benchmark_items.suites"),
    (f"lora_adapter.seed=hf_{'a' * 34}", "lora_adapter.seed: the value looks like a secret"),
]
BATCHES = ["my batch", "Woche-ü", "-x", "x" * 300, "../../etc", "a/b", ".", "", "imported", "a\nb", "\x1b[31mred"]
ENVIRONMENTS = [
    (["plan"], {"SYNTH_TIER": "h900"}, "h900"),
    (["plan"], {"SYNTH_PRESET": "nope"}, "unknown preset 'nope'"),
    (RUN, {"SYNTH_BASE": "/no/such/folder"}, "/no/such/folder"),
    (RUN, {"SYNTH_TEACHER": "embedded:nope"}, "nope"),
    (RUN, {"MLFLOW_TRACKING_URI": "http://me:hunter2@mlflow.example"}, "MLFLOW_TRACKING_PASSWORD"),
    (["plan"], {"SYNTH_HOME": "/proc/no-such-place"}, "/proc/no-such-place"),
    (["batches"], {"SYNTH_HOME": __file__}, Path(__file__).name),
    (["status"], {"SYNTH_HOME": "/dev/null/x"}, "/dev/null"),
    (RUN, {"DAGSTER_HOME": "/proc/no-such-place"}, "/proc/no-such-place"),
]


@pytest.mark.parametrize(("arguments", "expected"), OPTIONS)
def test_wrong_options(arguments: list[str], expected: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(synth(arguments, home, capsys), expected)


@pytest.mark.parametrize(("setting", "expected"), SETTINGS)
def test_wrong_settings(setting: str, expected: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(synth([*SET, setting], home, capsys), expected)


@pytest.mark.parametrize("name", BATCHES)
def test_wrong_batches(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(synth([*RUN, "--batch", name], home, capsys), "no batch can be named")


@pytest.mark.parametrize(("arguments", "environment", "expected"), ENVIRONMENTS)
def test_wrong_environment(
    arguments: Sequence[str],
    environment: dict[str, str],
    expected: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = synth(arguments, home, capsys, environment)
    refused(result, expected)
    assert "hunter2" not in result.out + result.error


FILES = {
    "empty.jsonl": b"",
    "binary.jsonl": bytes(range(256)),
    "torn.jsonl": b'{"instruction": "a", "output"',
    "numbers.jsonl": b"1\n2\n",
    "torn.parquet": b"PAR1 torn",
    "empty.csv": b"",
    "picture.png": b"\x89PNG",
    "no-columns.jsonl": b'{"x": 1}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_imported(
    name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    file.write_bytes(FILES[name])
    refused(synth(["import", str(file)], home, capsys), name)


def test_import_options_and_folders(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "Name a colour.", "output": "Red."}\n')
    refused(synth(["import", str(file), "--format", "nope"], home, capsys), "nope")
    refused(synth(["import", str(file), "--column", "instruction"], home, capsys), "ours=theirs")
    (tmp_path / "folder").mkdir()
    refused(synth(["import", str(tmp_path / "folder")], home, capsys), "folder")


def test_a_damaged_database_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert synth(["batches"], tmp_path, capsys).code == 0
    for file in tmp_path.rglob("*.db*"):
        file.write_bytes(b"no database at all" * 100)
    refused(synth(["batches"], tmp_path, capsys), "database")


def test_an_unwritable_folder_for_weights(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(synth(["embedded", "build", "/proc/no-such-place"], home, capsys), "/proc/no-such-place")


def test_an_unexpected_error_is_one_line_and_its_traceback_is_logged(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        return {}["missing"]

    monkeypatch.setattr("synth_assets.cli.status.status_text", broken)
    result = synth(["status"], home, capsys)
    assert result.code == 2
    (line,) = result.error.splitlines()
    assert "unexpected error, please report it" in line
    assert "KeyError: 'missing'" in line
    assert "Traceback" not in result.out + result.error
    assert "Traceback" in (home / "logs" / "errors.log").read_text()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("lora_adapter.learning_rate=2e-4", 2e-4),
        ("lora_adapter.learning_rate=1E3", 1000.0),
        ("lora_adapter.learning_rate=.5e-3", 5e-4),
        ("lora_adapter.rank=16", 16),
        ("lora_adapter.phases=[1e-1, 9e-1]", [0.1, 0.9]),
        ("promotion_decision.version=3", "3"),  # text that looks like a number
        ("promotion_decision.approve=true", True),
        ("filtered_instructions.min_words=3", 3),  # the asset of a multi-asset op
        ("raw_instructions.samples=null", None),
    ],
)
def test_values_have_the_type_of_their_field(setting: str, expected: object, home: Path) -> None:
    from synth_assets.cli.settings import ops_for

    with mock.patch.dict(os.environ, {"SYNTH_HOME": str(home), "SYNTH_TIER": "cpu"}):
        (op,) = ops_for(run_command.pipeline_job(), [setting]).values()
    assert [*op["config"].values()] == [expected]
