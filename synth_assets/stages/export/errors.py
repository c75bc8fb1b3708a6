"""The error of an export."""


class ExportError(ValueError):
    """A model cannot be exported; the message names the remedy."""
