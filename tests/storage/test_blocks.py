import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from synth_assets.storage import atomic
from synth_assets.storage.atomic import sweep_temporaries, write_atomically
from synth_assets.storage.blocks import Block, compute_blocks, in_blocks, read_blocks

SCHEMA = pl.Schema({"square": pl.Int64})


class Squares:
    """Counts which blocks had to be computed."""

    def __init__(self) -> None:
        self.computed: list[int] = []

    def __call__(self, number: int) -> pl.DataFrame:
        self.computed.append(number)
        return pl.DataFrame({"square": [number * number]}, SCHEMA)


def blocks(count: int) -> list[Block]:
    return [Block(f"key{number}", 1, number) for number in range(count)]


def run(folder: Path, count: int, squares: Squares, lines: list[str] | None = None) -> list[Path]:
    say: Callable[[str], None] = (lines if lines is not None else []).append
    return compute_blocks(blocks(count), squares, folder, what="squares", progress=say)


def test_in_blocks_keeps_the_order() -> None:
    assert list(in_blocks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(in_blocks([], 2)) == []


def test_block_files_are_in_order(tmp_path: Path) -> None:
    paths = run(tmp_path, 12, Squares())
    assert read_blocks(paths, SCHEMA)["square"].to_list() == [n * n for n in range(12)]


def test_cached_blocks_are_not_computed_again(tmp_path: Path) -> None:
    first = run(tmp_path, 3, Squares())
    squares, lines = Squares(), []
    second = run(tmp_path, 5, squares, lines)
    assert squares.computed == [3, 4]
    assert second[:3] == first
    assert lines[0] == "squares: 3 of 5 found in the cache"
    assert lines[-1].startswith("squares: 2 of 2, ")


def _flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:20] + bytes([data[20] ^ 128]) + data[21:])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_flip, _truncate, _empty])
def test_damaged_block_is_logged_and_computed_again(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:  # faults 2 and 3
    before = run(tmp_path, 4, Squares())
    damage(before[2])
    squares = Squares()
    with caplog.at_level(logging.WARNING):
        after = run(tmp_path, 4, squares)
    assert squares.computed == [2]
    assert after == before
    assert [record.message for record in caplog.records] == [f"{before[2].name} is damaged; computing the block again"]


def test_only_a_deleted_block_is_computed_again(tmp_path: Path) -> None:  # fault 2
    run(tmp_path, 4, Squares())[1].unlink()
    squares = Squares()
    run(tmp_path, 4, squares)
    assert squares.computed == [1]


def test_failure_keeps_finished_blocks(tmp_path: Path) -> None:
    def fail_at_two(number: int) -> pl.DataFrame:
        if number == 2:
            raise RuntimeError("out of memory")
        return Squares()(number)

    with pytest.raises(RuntimeError, match="out of memory"):
        compute_blocks(blocks(4), fail_at_two, tmp_path, what="squares", progress=lambda _: None)
    squares = Squares()
    run(tmp_path, 4, squares)
    assert squares.computed == [2, 3]


def test_no_blocks_give_an_empty_table(tmp_path: Path) -> None:
    assert run(tmp_path / "missing", 0, Squares()) == []
    assert read_blocks([], SCHEMA).schema == SCHEMA


def test_write_is_atomic(tmp_path: Path) -> None:  # fault 4
    path = tmp_path / "inner" / "a.txt"
    write_atomically(path, lambda temporary: _write(temporary, "old"))

    def torn(temporary: Path) -> None:
        temporary.write_text("ne")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        write_atomically(path, torn)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_full_disk_error_names_path_and_bytes(tmp_path: Path) -> None:  # fault 5
    # /dev/full answers ENOSPC to every write, as a full disk does
    path = tmp_path / "a.txt"

    def fill(temporary: Path) -> None:
        temporary.write_bytes(b"12345")
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(OSError, match=f"wrote 5 bytes of {path}") as caught:
        write_atomically(path, fill)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from synth_assets.storage.atomic import write_atomically
def write(temporary):
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), write)
"""


def test_temporary_file_of_a_killed_writer_is_removed(tmp_path: Path) -> None:  # fault 4
    path = tmp_path / "inner" / "a.txt"
    write_atomically(path, lambda temporary: _write(temporary, "old"))
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False, timeout=60)
    assert killed.returncode == -9
    assert len(list(path.parent.iterdir())) == 2
    assert sweep_temporaries(tmp_path) == 1
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_temporary_file_of_a_running_or_unknown_writer_is_kept(tmp_path: Path) -> None:
    mine = tmp_path / f".a.txt.{atomic._HOST}.{os.getpid()}.1.tmp"
    strange = tmp_path / ".a.txt.another-machine.999999.1.tmp"
    old = tmp_path / ".b.txt.another-machine.999999.1.tmp"
    for path in (mine, strange, old):
        path.touch()
    two_hours_ago = time.time() - 7_200
    os.utime(old, (two_hours_ago, two_hours_ago))
    assert sweep_temporaries(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted([mine, strange])


def test_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep_temporaries(tmp_path / "missing") == 0
