"""Errors of the training engine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class TrainingError(ValueError):
    """A training that cannot give a usable adapter; the message is what a person reads on the scoreboard."""
