"""Run configs of the stage adapters."""

from functools import cache

from pydantic import Field, create_model

from resources.spec_config import config_of
from resources.step_meter import BudgetConfig
from synth_assets.training.methods import Method
from synth_assets.training.plan import CHECKPOINT_EVERY_S


class TrainingConfig(BudgetConfig):
    """Settings of one training that are not part of a spec."""

    max_minutes: float | None = Field(
        None, gt=0, description="Most wall time in minutes; a longer training is refused or stopped."
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        description="Most US dollars at the tier's price; a more expensive training is refused or stopped.",
    )
    force: bool = Field(False, description="Train again although the adapter exists.")
    checkpoint_every_s: float = Field(CHECKPOINT_EVERY_S, ge=0, description="Seconds between checkpoints.")


@cache
def config_of_method(method: Method) -> type[TrainingConfig]:
    """Return the config of a method's assets: the fields of its spec, and those of every training."""
    name = f"{method.spec.__name__.removesuffix('Spec')}Config"
    return create_model(name, __base__=(config_of(method.spec), TrainingConfig))  # pyright: ignore[reportReturnType]
