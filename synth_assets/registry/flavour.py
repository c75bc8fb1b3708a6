"""The pyfunc flavour of a registered adapter: how `mlflow.pyfunc.load_model` builds it on its base model."""

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import from_json

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

BASE_RECORD, TOKENIZER, EXAMPLE = "base_model.json", "tokenizer", "input_example.json"
REQUIREMENTS, PYTHON_ENV, MLMODEL = "requirements.txt", "python_env.yaml", "MLmodel"
LOADED = "registered_model_meta"  # written by MLflow into the artifacts of a version that it has loaded
FLAVOUR_FILES = (BASE_RECORD, TOKENIZER, EXAMPLE, REQUIREMENTS, PYTHON_ENV, MLMODEL, LOADED)
"""Files and folders beside the files of an adapter that do not belong to it."""

LIBRARIES = ("synth-assets", "mlflow", "torch", "transformers", "peft")
QUESTION = "What is the capital of France?"


DEFAULTS: Mapping[str, int | float] = {"max_tokens": 256, "temperature": 0.0, "top_p": 1.0, "seed": 0}
"""Parameters of a prediction; temperature 0 is greedy."""


@dataclass(frozen=True)
class Flavour:
    """How to load an adapter as a model.

    Args:
        loader: module whose `_load_pyfunc(path)` loads the model.
        base: the base model, referred to by location and revision; its weights are not copied.
        save_tokenizer: saves the tokenizer with its chat template to a folder.
    """

    loader: str
    base: ModelRecord
    save_tokenizer: Callable[[Path], object]


def write_flavour(flavour: Flavour, model: "LoggedModel", folder: Path) -> None:
    """Write the FLAVOUR_FILES of a logged model to `folder`."""
    from mlflow.models import Model

    flavour.save_tokenizer(folder / TOKENIZER)
    (folder / BASE_RECORD).write_text(json.dumps(asdict(flavour.base), sort_keys=True, indent=1), "utf-8")
    example = {"columns": ["prompt"], "data": [[QUESTION]]}
    (folder / EXAMPLE).write_text(json.dumps(example), "utf-8")
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in LIBRARIES]
    (folder / REQUIREMENTS).write_text("\n".join(pins) + "\n", "utf-8")
    environment = {"python": platform.python_version(), "dependencies": [f"-r {REQUIREMENTS}"]}
    (folder / PYTHON_ENV).write_text(yaml.safe_dump(environment), "utf-8")
    description = Model(
        run_id=model.source_run_id,
        model_id=model.model_id,
        signature=_signature(),
        saved_input_example_info={"artifact_path": EXAMPLE, "pandas_orient": "split", "type": "dataframe"},
        metadata={"base": flavour.base.name, "base_revision": flavour.base.revision},
    )
    description.add_flavor(  # as mlflow.pyfunc.add_to_model does, whose import takes seconds and warns
        "python_function",
        loader_module=flavour.loader,
        data=".",
        env={"virtualenv": PYTHON_ENV},
        python_version=platform.python_version(),
    )
    description.save(str(folder / MLMODEL))


def read_base(folder: Path) -> ModelRecord:
    """Return the base model of a downloaded version."""
    return from_json(ModelRecord, (folder / BASE_RECORD).read_text("utf-8"))


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    options = [
        ParamSpec(name, DataType.long if isinstance(value, int) else DataType.double, value)
        for name, value in DEFAULTS.items()
    ]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt")]),
        outputs=Schema([ColSpec(DataType.string)]),
        params=ParamSchema(options),
    )
