"""`synth models fetch`: a packaged model on this machine, with what is known of it."""

import os
from collections.abc import Callable

from resources.deployment import home_folder
from synth_assets.llm.sources.fetch import fetch_model
from synth_assets.llm.sources.packages import packaged_model

USE = {
    "language": "Use it with SYNTH_TEACHER={name} and SYNTH_BASE={name}, or with SYNTH_TIER=laptop.",
    "embedding": "Use it with SYNTH_EMBEDDER={name}.",
}
"""How a model of each kind is selected."""


def fetched_text(name: str, progress: Callable[[str], None]) -> str:
    """Fetch a model into this deployment's home and say where it lies and how it is used.

    Raises:
        ModelFilesError: no such model, or it cannot be had; names the remedy.
    """
    row, home = packaged_model(name), home_folder()
    os.environ["SYNTH_HOME"] = str(home)
    fetched = fetch_model(name, progress)
    state = "was fetched before; its files match their manifest" if fetched.was_there else "is ready"
    return "\n".join(
        [
            f"{name} {state}: {fetched.folder}",
            f"licence {row.licence}, {fetched.disk_bytes / 1e6:.0f} MB, revision {fetched.revision}, weights "
            f"{row.state_of_weights}",
            USE[row.kind].format(name=name),
        ]
    )
