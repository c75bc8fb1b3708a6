"""Locations of models inside SYNTH_HOME that stay valid when the home is moved: `home:reward_models/<fingerprint>`."""

import os
from pathlib import Path

from synth_assets.llm.errors import ModelFilesError

HOME = "home:"
"""Prefix of the location of a model folder, relative to SYNTH_HOME."""


def home_model_folder(location: str) -> Path:
    """Return the folder of a model at `home:PATH`.

    Raises:
        ModelFilesError: SYNTH_HOME is not set, or it has no such folder.
    """
    home = _home()
    if home is None:
        raise ModelFilesError(f"{location} is below SYNTH_HOME, which is not set: set it to the deployment's folder")
    folder = (home / location.removeprefix(HOME)).resolve()
    if folder == home or not folder.is_relative_to(home) or not folder.is_dir():
        raise ModelFilesError(f"{location} must be a folder below SYNTH_HOME ({home}), and there is none")
    return folder


def portable_location(folder: Path) -> str:
    """Return the location of a model folder for a record: relative to SYNTH_HOME if it is inside, else absolute."""
    home = _home()
    if home is None or not folder.resolve().is_relative_to(home):
        return str(folder)
    return HOME + folder.resolve().relative_to(home).as_posix()


def _home() -> Path | None:
    value = os.environ.get("SYNTH_HOME")
    return Path(value).expanduser().resolve() if value else None
