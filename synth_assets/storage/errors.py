"""Errors of stored files."""


class StorageError(RuntimeError):
    """SYNTH_HOME is not usable or lacks a required file; the message names the remedy."""
