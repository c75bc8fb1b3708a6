"""Instruction sets that are published on a hub: where they lie, how their columns are called, and their licence.

A new set is a row of HUB_SETS. None of them was downloaded where this was written; the tests read small files of the
same shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PREFIX = "hub:"


@dataclass(frozen=True)
class HubSet:
    """A row of HUB_SETS.

    Attributes:
        repository: owner/name of the data set.
        files: patterns of the files that hold its rows.
        format: key of FORMATS.
        licence: as the data set's card names it; it is shown and recorded with the import.
        columns: role -> column, where the format's own names do not fit.
    """

    repository: str
    files: tuple[str, ...]
    format: str
    licence: str
    columns: Mapping[str, str] = field(default_factory=dict)


HUB_SETS: dict[str, HubSet] = {
    "alpaca": HubSet("tatsu-lab/alpaca", ("data/*.parquet",), "alpaca", "cc-by-nc-4.0"),
    "alpaca-cleaned": HubSet("yahma/alpaca-cleaned", ("*.json",), "alpaca", "cc-by-4.0"),
    "dolly": HubSet(
        "databricks/databricks-dolly-15k",
        ("*.jsonl",),
        "completion",
        "cc-by-sa-3.0",
        {"instruction": "instruction", "input": "context", "response": "response"},
    ),
    "oasst1": HubSet("OpenAssistant/oasst1", ("data/*.parquet",), "tree", "apache-2.0"),
    "wizardlm-evol": HubSet("WizardLMTeam/WizardLM_evol_instruct_V2_196k", ("*.json",), "sharegpt", "mit"),
    "sharegpt": HubSet(
        "anon8231489123/ShareGPT_Vicuna_unfiltered",
        ("ShareGPT_V3_unfiltered_cleaned_split.json",),
        "sharegpt",
        "apache-2.0",
    ),
}


def hub_set(name: str) -> HubSet:
    """The row that "hub:<name>" means; ValueError naming the rows there are."""
    key = name.removeprefix(PREFIX)
    if key not in HUB_SETS:
        raise ValueError(f"no set {name}; there are {', '.join(PREFIX + known for known in HUB_SETS)}")
    return HUB_SETS[key]
