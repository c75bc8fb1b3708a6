"""The commit of the code that a command runs, recorded with its runs."""

import subprocess
from importlib.metadata import version

from resources.deployment import PROJECT

COMMIT = "commit"  # tag of runs that `synth run` starts


def present_commit() -> str:
    """Return the commit of the project, or its version where it is installed without a repository."""
    release = f"version {version('synth-assets')}"
    try:
        return f"{git('rev-parse', '--short=12', 'HEAD')}, {release}"
    except (OSError, subprocess.CalledProcessError):
        return release


def git(*arguments: str) -> str:
    """Return the output of a git command in the project. Raise CalledProcessError if it fails."""
    return subprocess.run(["git", *arguments], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()
