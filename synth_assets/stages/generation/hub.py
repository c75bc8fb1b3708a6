"""Instruction sets on the Hugging Face Hub: repository, files, format, columns and licence.

To add a set, add a row to HUB_SETS. Status: untested against the published files; the tests read small files of the
same schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PREFIX = "hub:"


@dataclass(frozen=True)
class HubSet:
    """A row of HUB_SETS.

    Attributes:
        repository: owner/name of the data set.
        files: patterns of its data files.
        format: key of FORMATS.
        licence: licence in the dataset card; shown and stored with the import.
        columns: column by role, if the format's column names do not apply.
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
    """Return the row of "hub:<name>"; raise ValueError with the existing rows if there is none."""
    key = name.removeprefix(PREFIX)
    if key not in HUB_SETS:
        raise ValueError(f"no set {name}; there are {', '.join(PREFIX + known for known in HUB_SETS)}")
    return HUB_SETS[key]
