import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.folders import check_disk, check_replaceable, export_folder, finished, link_or_copy
from synth_assets.storage.manifests import read_manifest

KILLED = """
import os, signal, sys
from pathlib import Path
from synth_assets.stages.export.folders import export_folder
from synth_assets.stages.export.merge import LogitDifference
def make(new, work):
    (new / "half").write_text("half")
    (work / "part").write_text("part")
    os.kill(os.getpid(), signal.SIGKILL)
export_folder(Path(sys.argv[1]), {}, LogitDifference, make, print)
"""


@dataclass(frozen=True)
class Size:
    value: int


def writer(text: str) -> Callable[[Path, Path], Size]:
    def make(new: Path, work: Path) -> Size:
        (new / "file").write_text(text + (work / "part").read_text() if (work / "part").exists() else text)
        return Size(len(text))

    return make


def never(_new: Path, _work: Path) -> Size:
    raise AssertionError("made again")


def test_an_unchanged_export_is_not_redone_and_a_changed_request_is(tmp_path: Path) -> None:
    target, lines = tmp_path / "out", []
    assert export_folder(target, {"names": ("a", "b")}, Size, writer("one"), lines.append) == Size(3)
    assert export_folder(target, {"names": ("a", "b")}, Size, never, lines.append) == Size(3)
    assert lines == ["out is unchanged"]
    assert export_folder(target, {"names": ("a",)}, Size, writer("other"), lines.append) == Size(5)
    assert (target / "file").read_text() == "other"
    assert read_manifest(target)["result"] == {"value": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_failed_export_leaves_the_earlier_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    export_folder(target, {"n": 1}, Size, writer("one"), print)
    with pytest.raises(AssertionError, match="made again"):
        export_folder(target, {"n": 2}, Size, never, print)
    assert finished(target, {"n": 1}, Size) == Size(3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.integration
def test_a_killed_export_leaves_no_half_folder_and_its_parts_are_used(tmp_path: Path) -> None:
    target = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    export_folder(target, {}, Size, writer("whole+"), print)
    assert {path.name for path in target.iterdir()} == {"file", "manifest.json"}
    assert (target / "file").read_text() == "whole+part"


def test_two_exports_do_not_write_to_one_folder(tmp_path: Path) -> None:
    work = tmp_path / ".out.export"
    work.mkdir()
    with FileLock(work / "lock"), pytest.raises(ExportError, match="another export is writing"):
        export_folder(tmp_path / "out", {}, Size, never, print)


def test_only_an_unchanged_export_is_replaced(tmp_path: Path) -> None:
    check_replaceable(tmp_path)
    target = tmp_path / "out"
    export_folder(target, {}, Size, writer("one"), print)
    check_replaceable(target)
    (target / "file").write_text("edited")
    with pytest.raises(ExportError, match="changed since"):
        check_replaceable(target)
    with pytest.raises(ExportError, match="no export of this project"):
        check_replaceable(tmp_path)


def test_the_disk_is_checked_first(tmp_path: Path) -> None:
    check_disk(tmp_path / "new" / "folder", 1_000, "the model")
    with pytest.raises(ExportError, match=r"the model needs 1\d+\.0 GB, .* free space, or export to another disk"):
        check_disk(tmp_path / "new", 1e20 / 1e6, "the model")


def test_links_share_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert os.stat(tmp_path / "a").st_ino == os.stat(tmp_path / "b").st_ino
