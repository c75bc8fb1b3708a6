"""Write FILE atomically while fsync fails with "no space left": `python full_at_fsync.py FILE [full]`.

File systems with delayed allocation, such as ext4, may report a full disk at fsync and not at write. A seccomp filter
makes fsync of this process fail in the same way.
"""

import ctypes
import errno
import platform
import struct
import sys
from pathlib import Path

from synth_assets.storage.atomic import write_atomically

FSYNC = {
    "x86_64": 74,
    "aarch64": 82,
}  # linux: syscall_64.tbl, asm-generic/unistd.h
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06


class Program(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def make_fsync_fail() -> None:
    """Make every fsync of this process fail with ENOSPC. Raises OSError if the kernel rejects the filter."""
    steps = [
        (LOAD_WORD, 0, 0, 0),  # the number of the system call
        (JUMP_IF_EQUAL, 0, 1, FSYNC[platform.machine()]),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSPC),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    program = Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "the kernel rejects the seccomp filter")


def fill(file: Path) -> None:
    file.write_bytes(b"thousand by" * 100)


if __name__ == "__main__":
    if sys.argv[2:] == ["full"]:
        make_fsync_fail()
    try:
        write_atomically(Path(sys.argv[1]), fill)
    except OSError as error:
        sys.exit(str(error))
