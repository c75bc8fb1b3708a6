"""The command line in a separate process: help, exit codes, one-line errors, no traceback.

tests/cli/test_mistakes.py covers many more mistakes in one process.
"""

import io
import os
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.main import get_command

from synth_assets.cli.app import PANELS, RedactingConsole, app
from synth_assets.cli.settings import read_settings

pytestmark = pytest.mark.integration


def synth(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from synth_assets.cli.app import main; main()", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=120
    )


def test_help_loads_no_dagster() -> None:
    program = (
        "import sys; from synth_assets.cli.app import app; print([m for m in ('dagster', 'torch') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def test_the_help_names_the_first_commands_and_groups_all_commands_by_panel() -> None:
    result = synth("-h", COLUMNS="200", _TYPER_FORCE_DISABLE_TERMINAL="1")  # no colours in CI
    assert result.returncode == 0
    assert "Start with synth doctor" in " ".join(result.stdout.split())
    positions = [result.stdout.index(f"─ {panel} ─") for panel in PANELS]
    assert positions == sorted(positions)
    assert "─ Commands ─" not in result.stdout


@pytest.mark.parametrize("command", sorted(get_command(app).commands))  # pyright: ignore[reportAttributeAccessIssue]
def test_every_command_and_option_has_a_help_text_in_whole_sentences(command: str) -> None:
    parsed = get_command(app).commands[command]  # pyright: ignore[reportAttributeAccessIssue]
    texts = [parsed.help or "", *(parameter.help or "" for parameter in parsed.params)]
    assert [text for text in texts if not (text[:1].isupper() and text.rstrip().endswith("."))] == []


def test_the_version_is_printed() -> None:
    assert synth("--version").stdout == f"synth-assets {version('synth-assets')}\n"


@pytest.mark.parametrize("arguments", [[], ["embedded"]])
def test_a_call_without_command_prints_the_help(arguments: list[str]) -> None:
    result = synth(*arguments)
    assert (result.returncode, result.stderr) == (2, "")
    assert "Usage:" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["plan", "--tier", "h900"], "h900"),  # fault 27: unknown tier
        (["run", "--yes", "--set", "raw_instructions.sampels=3"], "sampels"),  # fault 27: unknown key
        (["run", "--yes", "--batch", "../../etc"], "batch"),  # fault 29: path traversal
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], names: str) -> None:
    result = synth(*arguments)
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert names in lines[0]
    assert "hf_" not in lines[0]


@pytest.mark.parametrize("address", ["http://me:hunter2@mlflow.example", "HTTPS://hunter2@mlflow.example/"])
def test_a_password_in_an_address_is_refused(address: str) -> None:  # fault 27: secret
    result = synth("run", "--yes", MLFLOW_TRACKING_URI=address)
    assert result.returncode == 2
    assert "MLFLOW_TRACKING_PASSWORD" in result.stderr
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    "value",
    [
        f"hf_{'a' * 34}",
        "https://hunter2@host.example",
        "HTTP://bob:hunter2@host.example",
        "http://host.example/?token=hunter2",
        "{algebra: [https://host.example, 'https://hunter2@host.example']}",
        "http://host.example/?next=https%3A%2F%2Fbob%3Ahunter2%40other.example",
    ],
)
def test_a_setting_with_a_secret_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"raw_instructions\.topics: the value looks like a secret") as refused:
        read_settings([f"raw_instructions.topics={value}"])
    assert "hunter2" not in str(refused.value)
    assert "hf_" not in str(refused.value)


def test_an_invalid_setting_is_quoted_without_its_secret() -> None:
    result = synth("run", "--yes", "--set", "https://hunter2@host.example")
    assert result.returncode == 2
    assert "hunter2" not in result.stdout + result.stderr


def test_doctor_redacts_addresses() -> None:
    hook = "https://hooks.example/services/hunter2"
    result = synth("doctor", SYNTH_WEBHOOK_URL=hook, MLFLOW_TRACKING_URI="postgresql://me:hunter2@db.example/mlflow")
    assert "ok   webhook        https://hooks.example\n" in result.stdout
    assert "ok   tracking       postgresql://***@db.example/mlflow\n" in result.stdout
    result = synth("doctor", SYNTH_WEBHOOK_URL="hooks.example/services/hunter2", MLFLOW_TRACKING_URI=f"{hook}?hunter2")
    assert result.returncode == 2
    assert "FAIL webhook" in result.stdout
    assert "FAIL tracking" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


def test_the_console_redacts_secrets() -> None:
    printed = io.StringIO()
    RedactingConsole(file=printed, width=200).print("see https://hunter2@host.example/x", 3, markup=False)
    assert printed.getvalue() == "see https://***@host.example/x 3\n"


def test_wrong_input_is_found_before_torch_is_imported() -> None:
    program = (
        "import sys\nfrom synth_assets.cli.app import app\n"
        "try:\n    app(['run', '--yes', '--set', 'raw_instructions.sampels=3'], standalone_mode=False)\n"
        "except ValueError as error:\n    print('sampels' in str(error), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip().splitlines()[-1] == "True False"


def test_models_are_listed_for_another_tier() -> None:
    result = synth("models", "--tier", "rtx24")
    assert (result.returncode, result.stderr) == (0, "")
    assert "phi-3-mini-4k" in result.stdout
    assert synth("models", "--tier", "h900").returncode == 2  # fault 27


def test_a_read_only_home_fails_before_any_work() -> None:
    result = synth("doctor", SYNTH_HOME="/proc/no-such-place")  # fault 6
    assert result.returncode == 2
    assert "/proc/no-such-place" in result.stdout


def test_without_confirmation_nothing_is_started() -> None:
    result = synth("run")
    assert result.returncode == 2
    assert result.stdout.startswith("Loading Dagster ...\n")  # before anything slow
    assert "--yes" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
