"""YAML loader that reads 2e-4 as a number, as in YAML 1.2. PyYAML implements YAML 1.1, where it is text."""

import re
from typing import Any

import yaml
from dagster_shared.yaml_utils import DagsterYamlLoader

from synth_assets.text.redaction import cause_of

FLOAT = "tag:yaml.org,2002:float"
TIMESTAMP = "tag:yaml.org,2002:timestamp"
EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z")
"""A number with an exponent in the core schema of YAML 1.2.2, section 10.3.2."""


class NumberLoader(DagsterYamlLoader):
    """Dagster's loader, which reads dates as text, with the numbers of YAML 1.2."""


def add_exponents(loader: type[yaml.SafeLoader]) -> None:
    """Make a loader read numbers with an exponent as numbers."""
    loader.add_implicit_resolver(FLOAT, EXPONENT, list("-+.0123456789"))


def read_exponents_in_launchpad() -> None:
    """Make Dagster's own loader, which reads run config in the webserver, accept exponents. Safe to call twice."""
    if not any(EXPONENT is pattern for _, pattern in DagsterYamlLoader.yaml_implicit_resolvers.get("1", [])):
        add_exponents(DagsterYamlLoader)


def load_value(text: str) -> Any:  # noqa: ANN401 - any YAML value
    """Return the value of a YAML text. Raises ValueError if it is not valid YAML."""
    try:
        return yaml.load(text, Loader=NumberLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or cause_of(error)
        raise ValueError(
            f"{text!r} is not valid YAML: {problem}. Quote text that contains brackets, colons or '#'"
        ) from error


add_exponents(NumberLoader)
