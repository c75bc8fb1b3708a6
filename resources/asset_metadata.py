"""Order and precision of asset metadata: what a person looks for first stands first on the asset's page."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

SIGNIFICANT_DIGITS = 4
HEADLINES = (
    "failure",
    "failed",
    "outcome",
    "serves",
    "serves_because",
    "candidate",
    "reason",
    "scores",
    "serves_scores",
    "final_loss",
)
"""Entries that say what came out, in their order on the page."""
IDENTIFIERS = ("_id", "fingerprint", "revision", "sha256", "manifest", "path", "data_version")
"""Ends of the names of entries that only programs read."""


def presented(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with pictures first, then results, links, numbers, tables, and ids last; floats are rounded."""
    names = sorted(metadata, key=lambda name: (_rank(name, metadata[name]), _headline(name)))  # a stable sort
    return {name: _rounded(metadata[name]) for name in names}


def _rank(name: str, value: object) -> int:
    if isinstance(value, dg.MarkdownMetadataValue) and (value.md_str or "").lstrip().startswith("!["):
        return 0
    if name in HEADLINES:
        return 1
    if isinstance(value, dg.UrlMetadataValue):
        return 2
    if name.endswith(IDENTIFIERS):
        return 5
    return 4 if isinstance(value, dg.MarkdownMetadataValue | dg.JsonMetadataValue) else 3


def _headline(name: str) -> int:
    return HEADLINES.index(name) if name in HEADLINES else 0


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any metadata value
    """Return a float with SIGNIFICANT_DIGITS digits; anything else unchanged."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
