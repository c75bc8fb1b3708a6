"""MLflow tracker: training runs, model versions, verified scores and aliases."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.registry.datasets import dataset_input, log_answers
from synth_assets.registry.flavour import Flavour
from synth_assets.registry.live_training import open_training, run_name
from synth_assets.registry.logged_models import adapter_model, add_flavour
from synth_assets.registry.metric_verification import verify_metric
from synth_assets.registry.retry import with_retries
from synth_assets.registry.run_metrics import DIGEST_LENGTH, log_numbers, log_parameters
from synth_assets.registry.score_runs import ITEMS, METRICS, log_evaluation
from synth_assets.registry.tags import adapter_tags, model_id_of, tag_filter, totals
from synth_assets.registry.version_tags import delete_tag, set_tags, shown, tags_of, tags_of_all
from synth_assets.schemas.records import AdapterRecord, Metric
from synth_assets.schemas.serialization import fingerprint, to_json
from synth_assets.storage.manifests import content_hash
from synth_assets.storage.stored_files import read_table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

MODEL = "synth-instruct"
RECORD = "adapter_record.json"  # the AdapterRecord, without run id and version
DATA_VERSIONS = "data_versions.json"  # upstream data versions; the version's tag holds their hash


@dataclass(frozen=True)
class MlflowTracker:
    """A tracker for one experiment. Every method is idempotent, so that it can be repeated after a failure.

    Args:
        client: the MLflow client.
        experiment: id of the experiment.
        lock: holds a named lock against other processes of the same home.
        tags: tags of everything that is logged.
    """

    client: "MlflowClient"
    experiment: str
    lock: Callable[[str], AbstractContextManager[None]]
    tags: Mapping[str, str]

    def log_training(
        self,
        record: AdapterRecord,
        folder: Path,
        curve: Sequence[Mapping[str, float]],
        tags: Mapping[str, str],
        flavour: Flavour | None = None,
    ) -> tuple[str, str]:
        """Return the run id and the version of an adapter, creating them once per fingerprint and weights.

        Args:
            record: the adapter; its run and version fields are ignored.
            folder: the adapter's files, which are hashed and uploaded.
            curve: metrics of each logged step; "step" is the step, default: the index.
            tags: additional tags.
            flavour: how MLflow loads the adapter; None if it does not.

        Raises:
            ValueError: the adapter failed to train, or the folder has no safetensors file.
            TrackingError: MLflow stays unreachable; the adapter is kept in `folder` and a rerun only uploads it.
        """
        if record.failure:
            raise ValueError(f"cannot register {record.name}: it failed to train ({record.failure})")
        all_tags = {**self.tags, **tags, **adapter_tags(record, folder), "manifest_sha256": record.manifest_sha256}
        safe = f"The adapter is kept in {folder}; run {record.name} again once MLflow is reachable: it only uploads"
        with self.lock(f"adapter-{record.fingerprint}"):
            return with_retries(lambda: self._log_training(record, (folder, flavour), curve, all_tags), self._uri, safe)

    def log_scores(self, metrics: Sequence[Metric], items: pl.DataFrame, versions: Mapping[str, str]) -> str:
        """Log verified metrics and return the run id.

        Each version in `versions` (model -> version) and the base model get their scores on their own run and logged
        model, under names that do not contain the model; the tags of the version refer to the evaluation run.

        Raises:
            ValueError: a metric does not match its items; names the first one.
            TrackingError: MLflow stays unreachable.
        """
        items_hash = content_hash(items)
        for metric in metrics:
            verify_metric(metric, items, items_hash)
        safe = "The scores are kept in the block cache; run benchmark_scores again once MLflow is reachable"
        with self.lock(f"scores-{items_hash}"):
            return with_retries(lambda: log_evaluation(self, metrics, items, items_hash, versions), self._uri, safe)

    def scores_run(self, items_hash: str) -> str | None:
        """Return the id of the finished run with this items hash, or None."""
        run = with_retries(lambda: self.run_with({"items_hash": items_hash}), self._uri)
        return run.info.run_id if run and run.info.status == "FINISHED" else None

    def run_with(self, tags: Mapping[str, str]) -> "Run | None":
        """Return the oldest run of the experiment with all these tags, or None."""
        runs = self.client.search_runs(
            [self.experiment], tag_filter(tags), order_by=["attributes.start_time ASC"], max_results=1
        )
        return runs[0] if runs else None

    def alias(self, name: str) -> str | None:
        """Return the version that an alias ("champion", "challenger") points to, or None."""
        return self.aliases().get(name)

    def aliases(self) -> dict[str, str]:
        """Return every alias and its version."""
        models = with_retries(lambda: self.client.search_registered_models(f"name = '{MODEL}'"), self._uri)
        return {name: str(version) for model in models for name, version in model.aliases.items()}

    def set_alias(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Tag a version with the evidence, then set the alias. Raise KeyError if the version does not exist."""
        registered = self.registered(version)

        def point() -> None:
            set_tags(self.client, registered, tags)
            self.client.set_registered_model_alias(MODEL, name, version)

        with self.lock("aliases"):
            with_retries(point, self._uri)

    def registered(self, version: str) -> "ModelVersion":
        """Return a model version. Raise KeyError if it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            return with_retries(lambda: self.client.get_model_version(MODEL, version), self._uri)
        except MlflowException as error:
            raise KeyError(f"{MODEL} has no version {version}") from error

    def version_tags(self, version: str) -> dict[str, str]:
        """Return the tags of a version. Raise KeyError if it does not exist."""
        registered = self.registered(version)
        return with_retries(lambda: tags_of(self.client, registered), self._uri)

    def find_version(self, adapter: str) -> str | None:
        """Return the newest version with this adapter fingerprint, or None."""
        versions = with_retries(lambda: self._versions({"fingerprint": adapter}), self._uri)
        return str(versions[0].version) if versions else None

    def remove_alias(self, name: str) -> None:
        """Delete an alias."""
        with self.lock("aliases"):
            with_retries(lambda: self.client.delete_registered_model_alias(MODEL, name), self._uri)

    def model_tags(self) -> dict[str, str]:
        """Return the tags of the registered model; empty if nothing is registered yet."""
        models = with_retries(lambda: self.client.search_registered_models(f"name = '{MODEL}'"), self._uri)
        return {name: value for model in models for name, value in model.tags.items()}

    def tag_model(self, name: str, value: str) -> None:
        """Set a tag of the registered model."""
        with_retries(lambda: self.client.set_registered_model_tag(MODEL, name, value), self._uri)

    def versions(self) -> dict[str, dict[str, str]]:
        """Return every version and its tags, oldest first."""
        return with_retries(lambda: tags_of_all(self.client, self.experiment, MODEL), self._uri)

    def tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        """Add tags to a version. Raise KeyError if it does not exist."""
        registered = self.registered(version)
        with_retries(lambda: set_tags(self.client, registered, tags), self._uri)

    def remove_tag(self, version: str, name: str) -> None:
        """Delete a tag of a version; do nothing if it has no such tag."""
        registered = self.registered(version)
        with_retries(lambda: delete_tag(self.client, registered, name), self._uri)

    def scored_items(self, run_id: str) -> pl.DataFrame:
        """Return the per-item table of a `log_scores` run. Raise ValueError if its hash has changed."""

        def fetch() -> pl.DataFrame:
            with tempfile.TemporaryDirectory() as folder:
                return read_table(Path(self.client.download_artifacts(run_id, ITEMS, folder)))

        items = with_retries(fetch, self._uri)
        expected = self.client.get_run(run_id).data.tags.get("items_hash")
        if content_hash(items) != expected:
            raise ValueError(f"items of run {run_id}: expected hash {expected}, got {content_hash(items)}")
        return items

    def scored_metrics(self, run_id: str) -> list[Metric]:
        """Return the metrics of a `log_scores` run, with the id of that run."""

        def fetch() -> list[Metric]:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(self.client.download_artifacts(run_id, METRICS, folder))
                return [Metric(**row) for row in json.loads(path.read_text("utf-8"))]

        return [replace(metric, mlflow_run_id=run_id) for metric in with_retries(fetch, self._uri)]

    def attach(self, run_id: str, folder: Path, name: str) -> None:
        """Log all files of `folder` as artifacts of a run under `name`, replacing those that exist."""
        safe = f"The files are kept in {folder}; run the asset again once MLflow is reachable"
        with_retries(lambda: self.client.log_artifacts(run_id, str(folder), name), self._uri, safe)

    def log_rows(self, run_id: str, name: str, rows: pl.DataFrame) -> None:
        """Log the schema and the profile of the training rows of a run."""
        data = dataset_input(name, rows, context="training")
        with_retries(lambda: self.client.log_inputs(run_id, [data]), self._uri)

    def log_answers(self, run_id: str, scores: pl.DataFrame, items: pl.DataFrame) -> None:
        """Log the answers of all models to the first test items as a table of a `log_scores` run."""
        with_retries(lambda: log_answers(self.client, run_id, scores, items), self._uri)

    @property
    def _uri(self) -> str:
        return self.client.tracking_uri

    def _log_training(
        self,
        record: AdapterRecord,
        files: tuple[Path, Flavour | None],
        curve: Sequence[Mapping[str, float]],
        tags: Mapping[str, str],
    ) -> tuple[str, str]:
        identity = {name: tags[name] for name in ("fingerprint", "weights_sha256")}
        opened = open_training(self, record.fingerprint)
        if versions := self._versions(identity):
            if opened:  # trained again to the same weights
                self.client.set_tag(opened.info.run_id, "same_weights_as", str(versions[0].run_id))
                self.client.set_terminated(opened.info.run_id, "FINISHED")
            if model_id := model_id_of(versions[0]):
                add_flavour(self, self.client.get_logged_model(model_id), files[1])
            return str(versions[0].run_id), str(versions[0].version)
        now = int(time.time() * 1000)
        run = self.run_with(identity) or self._adopted(opened, tags)
        run = run or self.client.create_run(
            self.experiment,
            run_name=run_name(record.name, record.fingerprint, tags),
            tags=dict(tags),
            start_time=now - int(record.seconds * 1000),
        )
        run_id = run.info.run_id
        if run.info.status != "FINISHED":
            self._log_run(run, record, curve)
            self.client.set_terminated(run_id, "FINISHED", end_time=now)
        versions = dict(record.data_versions)
        self.client.log_text(run_id, json.dumps(versions, sort_keys=True, indent=1), DATA_VERSIONS)
        model = adapter_model(self, run_id, record.name, files, identity)
        facts = {**tags, "model_id": model.model_id, "data_versions": fingerprint(versions)}
        self.client.set_logged_model_tags(model.model_id, facts)
        self._ensure_registered_model()
        version = self.client.create_model_version(
            MODEL,
            source=model.artifact_location,
            run_id=run_id,
            model_id=model.model_id,
            tags=shown(tags),
            description=f"{record.method} on {record.base}, from the asset {record.name}",
        )
        return run_id, str(version.version)

    def _adopted(self, opened: "Run | None", tags: Mapping[str, str]) -> "Run | None":
        """Return the run that was opened when the training started, with the tags of the finished adapter."""
        from mlflow.entities import RunTag

        if opened:
            self.client.log_batch(opened.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        return opened

    def _log_run(self, run: "Run", record: AdapterRecord, curve: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        parameters = {
            **record.spec,
            "base": record.base,
            "base_revision": record.base_revision,
            "method": record.method,
        }
        log_parameters(self.client, run, parameters)
        log_numbers(self.client, run, totals(record), curve)
        run_id = run.info.run_id
        data = [
            DatasetInput(Dataset(name, version[:DIGEST_LENGTH], "dagster asset", json.dumps({"asset": name})))
            for name, version in record.data_versions.items()
        ]
        self.client.log_inputs(run_id, data)
        self.client.log_text(run_id, to_json(record), RECORD)

    def _versions(self, tags: Mapping[str, str]) -> list["ModelVersion"]:
        """Return the versions whose logged model has these tags, newest first."""
        models = self.client.search_logged_models([self.experiment], filter_string=tag_filter(tags))
        found = {model.model_id for model in models}
        if not found:
            return []
        versions = [v for v in self.client.search_model_versions(f"name = '{MODEL}'") if model_id_of(v) in found]
        return sorted(versions, key=lambda version: int(version.version), reverse=True)

    def _ensure_registered_model(self) -> None:
        from mlflow.exceptions import MlflowException

        if self.client.search_registered_models(f"name = '{MODEL}'"):
            return
        try:
            self.client.create_registered_model(MODEL, description="Adapters, with evidence for each alias")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
