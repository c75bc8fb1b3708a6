from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg
import polars as pl
import pytest

from resources.inference import Inference
from resources.storage import AssetStorage, SynthHome
from resources.tracking import MlflowTracking
from synth_assets.registry.flavour import Flavour
from synth_assets.registry.live_training import LiveTraining
from synth_assets.registry.retry import TrackingError
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import from_json
from synth_assets.stages.adapters import assets

pytestmark = pytest.mark.integration

QUICK = {"epochs": 1.0, "batch_size": 8}
ADAPTERS = [
    *assets.ADAPTER_ASSETS,
    *assets.REFERENCE_ASSETS,
]


class Notebook:
    """Fake tracker that records trainings, or raises if it is down."""

    def __init__(self, down: bool = False) -> None:
        self.down = down
        self.trainings: list[tuple[AdapterRecord, Path, Mapping[str, str]]] = []
        self.attached: dict[str, tuple[str, set[str]]] = {}

    def log_training(
        self,
        record: AdapterRecord,
        folder: Path,
        curve: Sequence[Mapping[str, float]],
        tags: Mapping[str, str],
        flavour: Flavour,
    ) -> tuple[str, str]:
        assert flavour.base.revision == record.base_revision
        if self.down:
            raise ConnectionError("no tracking server")
        assert curve
        self.trainings.append((record, folder, tags))
        return f"run-{record.name}", str(len(self.trainings))

    def log_rows(self, run_id: str, name: str, rows: pl.DataFrame) -> None:
        assert rows.height, (run_id, name)

    def attach(self, run_id: str, folder: Path, name: str) -> None:
        self.attached[run_id] = (name, {path.name for path in folder.iterdir()})


class NotebookTracking(MlflowTracking):
    """MLflow tracking that uses a fake tracker."""

    def tracker(self, context: dg.AssetExecutionContext | None = None, **tags: str) -> Notebook:
        return NOTEBOOKS[self.ui_url]

    def live_training(
        self, context: dg.AssetExecutionContext, name: str, tags: Mapping[str, str]
    ) -> AbstractContextManager[LiveTraining]:
        return LiveTraining(self.unreachable, name, tags)

    def unreachable(self) -> NoReturn:
        raise TrackingError("no server")

    def run_url(self, run_id: str) -> str:
        return f"http://127.0.0.1/{run_id}"


NOTEBOOKS: dict[str, Notebook] = {}  # resources are copied, what they refer to by name is not


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    return NOTEBOOKS.setdefault(str(tmp_path), Notebook())


def materialize(
    tmp_path: Path,
    inputs: tuple[pl.DataFrame, pl.DataFrame, ModelRecord],
    inference: Inference,
    selection: list[str] | None = None,
    **config: dict[str, Any],
) -> dg.ExecuteInProcessResult:
    rows, pairs, base = inputs

    @dg.asset
    def sft_dataset() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=rows, data_version=dg.DataVersion("sft"))

    @dg.asset
    def preference_pairs() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=pairs, data_version=dg.DataVersion("pairs"))

    @dg.asset
    def on_policy_pairs() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=pairs, data_version=dg.DataVersion("own pairs"))

    @dg.asset
    def base_model() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=base, data_version=dg.DataVersion(base.revision))

    home = SynthHome(folder=str(tmp_path))
    names = [key.to_user_string() for asset in ADAPTERS for key in asset.keys]
    configs = {name: {"config": QUICK | config.get(name, {})} for name in names if not name.endswith("_logprobs")}
    return dg.materialize(
        [sft_dataset, preference_pairs, on_policy_pairs, base_model, *ADAPTERS],
        resources={
            "io_manager": AssetStorage(home=home),
            "inference": inference,
            "tracking": NotebookTracking(home=home, ui_url=str(tmp_path)),
        },
        run_config={"ops": {k: v for k, v in configs.items() if selection is None or k in selection}},
        selection=selection,
        raise_on_error=False,
    )


def record_of(tmp_path: Path, name: str) -> AdapterRecord:
    return from_json(AdapterRecord, (tmp_path / "tables" / f"{name}.json").read_text("utf-8"))


def test_all_adapters_are_trained_and_registered(
    tmp_path: Path,
    rows: pl.DataFrame,
    pairs: pl.DataFrame,
    base: ModelRecord,
    inference: Inference,
    notebook: Notebook,
) -> None:
    first = materialize(tmp_path, (rows, pairs, base), inference)
    assert first.success
    names = {record.name for record, _, _ in notebook.trainings}
    assert names == {
        "lora_adapter",
        "prompt_tuning_adapter",
        "dpo_adapter",
        "dpo_control_adapter",
        "rejection_sampling_adapter",
        "on_policy_dpo_adapter",
        "on_policy_dpo_control_adapter",
    }
    control = record_of(tmp_path, "dpo_control_adapter")
    assert (control.role, control.mlflow_run_id) == ("control", "run-dpo_control_adapter")
    assert control.data_versions["sft_dataset"] == "sft"
    assert control.data_versions["base_model"] == base.revision
    own, own_control = (record_of(tmp_path, f"on_policy_{name}") for name in ("dpo_adapter", "dpo_control_adapter"))
    assert (own.method, own.role, own_control.method, own_control.role) == (
        *("on_policy_dpo", "candidate"),
        *("on_policy_dpo", "control"),
    )
    assert (own_control.spec["dpo_weight"], own.spec["beta"], own_control.spec["beta"]) == (0.0, 1.0, 1.0)
    assert own.data_versions["on_policy_pairs"] == "own pairs"
    assert "preference_pairs" not in own.data_versions
    (materialization,) = first.asset_materializations_for_node("dpo_adapter")
    assert materialization.metadata["trained_before"].value is False
    assert len(str(materialization.metadata["dpo_training_curves"].value)) < 60_000
    assert notebook.attached["run-dpo_adapter"] == ("training", {"schedule.json", "dpo_training_curves.png"})
    assert notebook.attached["run-lora_adapter"] == ("training", {"schedule.json", "sft_training_curves.png"})
    manifest = pl.read_parquet(next((tmp_path / "manifests" / "lora_adapter").iterdir()))
    assert manifest["fate"].value_counts(sort=True).rows() == [("train", 21), ("validation", 3)]

    second = materialize(tmp_path, (rows, pairs, base), inference)
    (again,) = second.asset_materializations_for_node("dpo_adapter")
    assert again.metadata["trained_before"].value is True
    version = "dagster/data_version"
    assert (again.tags or {})[version] == (materialization.tags or {})[version]


# fault 17
def test_a_failed_training_materialises_with_its_reason(
    tmp_path: Path,
    rows: pl.DataFrame,
    pairs: pl.DataFrame,
    base: ModelRecord,
    inference: Inference,
    notebook: Notebook,
) -> None:
    chosen = ["sft_dataset", "preference_pairs", "base_model", "lora_adapter", "reference_logprobs", "dpo_adapter"]
    result = materialize(tmp_path, (rows, pairs, base), inference, chosen, lora_adapter={"target_modules": ["c_attn"]})
    assert result.success
    assert notebook.trainings == []
    assert "match no layer" in record_of(tmp_path, "lora_adapter").failure
    assert record_of(tmp_path, "dpo_adapter").failure.startswith("lora_adapter failed to train: ")
    assert pl.read_parquet(tmp_path / "tables" / "reference_logprobs.parquet").height == 0


# fault 21
def test_a_training_survives_a_tracking_server_that_is_down(
    tmp_path: Path,
    rows: pl.DataFrame,
    pairs: pl.DataFrame,
    base: ModelRecord,
    inference: Inference,
    notebook: Notebook,
) -> None:
    chosen = ["sft_dataset", "base_model", "lora_adapter"]
    notebook.down = True
    assert not materialize(tmp_path, (rows, pairs, base), inference, chosen).success
    notebook.down = False
    result = materialize(tmp_path, (rows, pairs, base), inference, chosen)
    (uploaded,) = result.asset_materializations_for_node("lora_adapter")
    assert uploaded.metadata["trained_before"].value is True
    assert [record.name for record, _, _ in notebook.trainings] == ["lora_adapter"]


# fault 27
def test_unknown_and_wrong_configuration_is_refused(
    tmp_path: Path, rows: pl.DataFrame, pairs: pl.DataFrame, base: ModelRecord, inference: Inference
) -> None:
    chosen = ["sft_dataset", "base_model", "lora_adapter"]
    with pytest.raises(dg.DagsterInvalidConfigError, match="rnak"):
        materialize(tmp_path, (rows, pairs, base), inference, chosen, lora_adapter={"rnak": 4})
