"""The command line as a program of its own: exit codes, one readable line, no traceback.

tests/test_mistakes.py tries many more mistakes in one process.
"""

import io
import os
import subprocess
import sys

import pytest

from synth_assets.cli.app import RedactingConsole
from synth_assets.cli.settings import read_settings


def synth(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from synth_assets.cli.app import main; main()", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=120
    )


def test_help_loads_no_dagster() -> None:
    program = (
        "import sys; from synth_assets.cli.app import app; print([m for m in ('dagster', 'torch') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"
    assert synth("--help").returncode == 0


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
def test_a_secret_among_the_settings_of_a_run_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"raw_instructions\.topics: the value looks like a secret") as refused:
        read_settings([f"raw_instructions.topics={value}"])
    assert "hunter2" not in str(refused.value)
    assert "hf_" not in str(refused.value)


def test_a_setting_that_is_not_one_is_repeated_without_its_secret() -> None:
    result = synth("run", "--yes", "--set", "https://hunter2@host.example")
    assert result.returncode == 2
    assert "hunter2" not in result.stdout + result.stderr


def test_doctor_shows_of_addresses_what_is_no_secret() -> None:
    hook = "https://hooks.example/services/hunter2"
    result = synth("doctor", SYNTH_WEBHOOK_URL=hook, MLFLOW_TRACKING_URI="postgresql://me:hunter2@db.example/mlflow")
    assert "ok   webhook        https://hooks.example\n" in result.stdout
    assert "ok   tracking       postgresql://***@db.example/mlflow\n" in result.stdout
    result = synth("doctor", SYNTH_WEBHOOK_URL="hooks.example/services/hunter2", MLFLOW_TRACKING_URI=f"{hook}?hunter2")
    assert result.returncode == 2
    assert "FAIL webhook" in result.stdout
    assert "FAIL tracking" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


def test_nothing_printed_holds_a_secret() -> None:
    printed = io.StringIO()
    RedactingConsole(file=printed, width=200).print("see https://hunter2@host.example/x", 3, markup=False)
    assert printed.getvalue() == "see https://***@host.example/x 3\n"


def test_wrong_input_is_found_before_torch_is_imported() -> None:
    program = (
        "import sys\nfrom synth_assets.cli.app import app\n"
        "try:\n    app(['run', '--yes', '--set', 'raw_instructions.sampels=3'], standalone_mode=False)\n"
        "except ValueError as error:\n    print('sampels' in str(error), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    assert found.stdout.strip().splitlines()[-1] == "True False"


def test_models_are_listed_for_a_tier_that_this_machine_is_not() -> None:
    found = synth("models", "--tier", "rtx24")
    assert (found.returncode, found.stderr) == (0, "")
    assert "phi-3-mini-4k" in found.stdout
    assert synth("models", "--tier", "h900").returncode == 2  # fault 27


def test_a_read_only_home_fails_before_any_work() -> None:
    result = synth("doctor", SYNTH_HOME="/proc/no-such-place")  # fault 6
    assert result.returncode == 2
    assert "/proc/no-such-place" in result.stdout


def test_without_an_answer_nothing_is_started() -> None:
    result = synth("run")
    assert result.returncode == 2
    assert result.stdout.startswith("Loading Dagster ...\n")  # before anything slow
    assert "--yes" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
