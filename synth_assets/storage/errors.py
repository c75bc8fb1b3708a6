"""Errors of stored files."""


class StorageError(RuntimeError):
    """SYNTH_HOME cannot be used, or does not hold what was asked; the message names the remedy."""
