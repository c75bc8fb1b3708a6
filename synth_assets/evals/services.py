"""What scoring needs from a deployment: models, folders, limits and a slot of the GPU pool."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from synth_assets.evals.scoring import EvaluatedModel
from synth_assets.schemas.records import AdapterRecord
from synth_assets.storage.blocks import Progress
from synth_assets.storage.budgets import WorkBudget


@dataclass(frozen=True)
class ScoringServices:
    """Services of a step that scores models.

    Attributes:
        load: returns the base model for None, else the base with that adapter; raises ManifestError.
        folder: folder of the stored response blocks.
        progress: receives a line every few seconds.
        budget: checked before each block of responses.
        gpu_slot: context manager to hold while a model runs, for steps outside the GPU pool.
    """

    load: Callable[[AdapterRecord | None], EvaluatedModel]
    folder: Path
    progress: Progress
    budget: WorkBudget
    gpu_slot: Callable[[], AbstractContextManager[None]]
