"""A path without the characters that libraries read as part of an address or a pattern."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

AWKWARD = re.compile(r"[?*\[\]%]")
"""SQLAlchemy ends a database's path at `?` and decodes `%`; Dagster globs beside its databases."""


def plain_path(folder: Path) -> Path:
    """Return `folder`, or a symbolic link to it where its path holds a character of AWKWARD.

    The link lies in a folder of this user under the system's temporary folder and has the same name in every process.
    Use it where a library builds an address from a path; store and show the real path.

    Raises:
        OSError: no link can be made there; names the remedy.
    """
    if not AWKWARD.search(str(folder)):
        return folder
    links = Path(tempfile.gettempdir()) / f"synth-assets-{os.getuid()}"
    if AWKWARD.search(str(links)):
        raise OSError(f"{folder} and {links} both hold one of ? * [ ] %: set TMPDIR or SYNTH_HOME to a path without")
    links.mkdir(mode=0o700, exist_ok=True)
    if links.is_symlink() or links.stat().st_uid != os.getuid():
        raise OSError(f"{links} belongs to another user: remove it, or set TMPDIR to a folder of your own")
    link = links / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink() or link.readlink() != folder:
        draft = link.with_suffix(f".{os.getpid()}")
        draft.unlink(missing_ok=True)
        draft.symlink_to(folder, target_is_directory=True)
        draft.replace(link)
    return link
