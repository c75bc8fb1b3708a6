"""Dataclass fields with descriptions."""

from collections.abc import Mapping
from copy import copy
from dataclasses import field
from typing import Any, TypeVar

T = TypeVar("T")


def setting(default: T, description: str) -> T:
    """Return a dataclass field with a default and a description for the launchpad and the reference.

    Args:
        default: default of the field; a mapping is copied for each instance.
        description: one or two sentences, with unit and range.
    """
    metadata: Mapping[str, Any] = {"description": description}
    if isinstance(default, dict):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)
