"""Paths without characters that libraries interpret as part of a URL or a glob pattern."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

AWKWARD = re.compile(r"[?*\[\]%]")
"""SQLAlchemy ends a database path at `?` and decodes `%`; Dagster globs for files next to its databases."""


def plain_path(folder: Path) -> Path:
    """Return `folder`, or a symbolic link to it if its path has a character of AWKWARD.

    The link is in a per-user folder below the system's temporary folder and has the same name in every process. Use it
    where a library builds a URL from a path; store and show the real path.

    Raises:
        OSError: the link cannot be created; names the remedy.
    """
    if not AWKWARD.search(str(folder)):
        return folder
    links = Path(tempfile.gettempdir()) / f"synth-assets-{os.getuid()}"
    if AWKWARD.search(str(links)):
        raise OSError(f"{folder} and {links} both have one of ? * [ ] %: set TMPDIR or SYNTH_HOME to another path")
    links.mkdir(mode=0o700, exist_ok=True)
    if links.is_symlink() or links.stat().st_uid != os.getuid():
        raise OSError(f"{links} belongs to another user: remove it, or set TMPDIR to your own folder")
    link = links / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink() or link.readlink() != folder:
        draft = link.with_suffix(f".{os.getpid()}")
        draft.unlink(missing_ok=True)
        draft.symlink_to(folder, target_is_directory=True)
        draft.replace(link)
    return link
