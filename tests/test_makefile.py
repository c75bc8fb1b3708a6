"""`make` logs the output of pip to a file, and prints the end of the log if pip fails."""

import shutil
import subprocess
from pathlib import Path

import pytest

from resources.deployment import PROJECT

PIP = """#!/bin/sh
echo "WARNING: Location local-index is ignored" >&2
echo "ERROR: No matching distribution found for torch==0" >&2
exit {code}
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("code", "expected"), [(0, "demo ran"), (1, "No matching distribution")])
def test_pip_output_goes_to_a_log_whose_end_is_shown_on_failure(tmp_path: Path, code: int, expected: str) -> None:
    (tmp_path / "bin").mkdir()
    for name, text in {
        "python": "#!/bin/sh\n",
        "pip": PIP.format(code=code),
        "synth": "#!/bin/sh\necho demo ran\n",
    }.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    result = subprocess.run(
        ["make", f"VENV={tmp_path}", "demo"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (result.returncode == 0) == (code == 0)
    assert expected in result.stdout
    assert ("local-index" in result.stdout + result.stderr) == (code != 0)
    assert "local-index" in (tmp_path / "install.log").read_text()
