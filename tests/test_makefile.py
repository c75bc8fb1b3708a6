"""`make` installs with a line of progress now and then, and shows pip's last lines where it fails."""

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
def test_what_pip_says_goes_to_a_log_and_its_end_is_shown_where_it_fails(
    tmp_path: Path, code: int, expected: str
) -> None:
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
