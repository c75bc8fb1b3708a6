"""YAML of settings and of the launchpad: numbers may have an exponent, dates stay text."""

import subprocess
import sys

import pytest

from synth_assets.orchestration.yaml_numbers import load_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2e-4", 2e-4),
        ("1E5", 1e5),
        ("-3e+2", -300.0),
        (".5e1", 5.0),
        ("1.e3", 1000.0),
        ("2.5e-4", 2.5e-4),
        ("{a: 1e-3, b: [2e1]}", {"a": 1e-3, "b": [20.0]}),
        ("0.5", 0.5),
        ("16", 16),
        ("true", True),
        ("null", None),
        ("2026-11-27", "2026-11-27"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("2e-4x", "2e-4x"),
        ("'2e-4'", "2e-4"),
    ],
)
def test_values(text: str, expected: object) -> None:
    assert load_value(text) == expected
    assert type(load_value(text)) is type(expected)


@pytest.mark.parametrize("text", ["[x", "a: b: c", "*a", "!!python/object:os.system x", "%x", "\t- a\n\t- b"])
def test_invalid_yaml_gives_a_one_line_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not valid YAML") as refused:
        load_value(text)
    assert "\n" not in str(refused.value)


def test_the_launchpad_accepts_exponents() -> None:
    program = (
        "from dagster_shared.yaml_utils import load_run_config_yaml as load\n"
        "from synth_assets.orchestration.yaml_numbers import read_exponents_in_launchpad\n"
        "read_exponents_in_launchpad(); read_exponents_in_launchpad()\n"
        "print(load('a: 2e-4\\nb: 2026-11-27\\nc: x'))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "{'a': 0.0002, 'b': '2026-11-27', 'c': 'x'}"
