"""Free space of the disk of a folder that may not exist yet."""

import shutil
from pathlib import Path


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be on."""
    return shutil.disk_usage(nearest_existing(folder)).free
