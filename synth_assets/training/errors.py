"""Errors of the training engine."""


class TrainingError(ValueError):
    """A training cannot produce a usable adapter. The scoreboard shows the message."""
