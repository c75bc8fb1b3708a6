"""What MLflow is told: trainings, versions of the registered model, scores that their items prove, aliases."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.registry.metric_verification import verify_metric
from synth_assets.registry.retry import with_retries
from synth_assets.registry.run_metrics import log_numbers, log_parameters
from synth_assets.registry.tags import adapter_tags, score_tag, score_text, tag_filter, totals
from synth_assets.schemas.records import AdapterRecord, Metric
from synth_assets.schemas.serialization import fingerprint, to_json
from synth_assets.storage.manifests import content_hash
from synth_assets.storage.stored_files import read_table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

MODEL = "synth-instruct"
DIGEST_LENGTH = 36  # of a dataset in MLflow's database
RECORD = "adapter_record.json"  # an AdapterRecord before MLflow knew it
DATA_VERSIONS = "data_versions.json"  # of what a version was made from; the version's tag carries its hash


@dataclass(frozen=True)
class MlflowTracker:
    """A `Tracker` over one experiment; every method may be repeated after a failure and leaves one result.

    Args:
        client: of the deployment.
        experiment: its id.
        lock: holds a named lock against the other processes of this home.
        tags: what goes onto everything that is logged.
    """

    client: "MlflowClient"
    experiment: str
    lock: Callable[[str], AbstractContextManager[None]]
    tags: Mapping[str, str]

    def log_training(
        self, record: AdapterRecord, folder: Path, curve: Sequence[Mapping[str, float]], tags: Mapping[str, str]
    ) -> tuple[str, str]:
        """The run and the version of this adapter, made once for its fingerprint and weights.

        Args:
            record: the adapter; its run and version fields are not read.
            folder: the complete adapter on disk; its weights are hashed and uploaded.
            curve: one mapping of metric to value for each logged step; "step" is the step, else its index.
            tags: beside the tracker's own.

        Raises:
            ValueError: the adapter failed to train, or the folder holds no safetensors.
            TrackingError: MLflow stays unreachable; the adapter is safe in `folder` and a rerun only uploads.
        """
        if record.failure:
            raise ValueError(f"{record.name} failed to train ({record.failure}): nothing to register")
        all_tags = {**self.tags, **tags, **adapter_tags(record, folder), "manifest_sha256": record.manifest_sha256}
        safe = f"The adapter is safe in {folder}; run {record.name} again once MLflow answers: it only uploads"
        with self.lock(f"adapter-{record.fingerprint}"):
            return with_retries(lambda: self._training_logged(record, folder, curve, all_tags), self._uri, safe)

    def log_scores(self, metrics: Sequence[Metric], items: pl.DataFrame, versions: Mapping[str, str]) -> str:
        """Log metrics that the items prove, attach them to `versions` (model -> version); returns the run id.

        Raises:
            ValueError: naming the first metric whose value, n or interval the items do not give.
            TrackingError: MLflow stays unreachable.
        """
        items_hash = content_hash(items)
        for metric in metrics:
            verify_metric(metric, items, items_hash)
        safe = "The scores are safe in their shards; run benchmark_scores again once MLflow answers"
        with self.lock(f"scores-{items_hash}"):
            return with_retries(lambda: self._scores_logged(metrics, items, items_hash, versions), self._uri, safe)

    def scores_run(self, items_hash: str) -> str | None:
        """The complete run that holds the items of this content hash, or None."""
        run = with_retries(lambda: self.run_with({"items_hash": items_hash}), self._uri)
        return run.info.run_id if run and run.info.status == "FINISHED" else None

    def run_with(self, tags: Mapping[str, str]) -> "Run | None":
        """The oldest run of the experiment that has all these tags, or None."""
        found = self.client.search_runs(
            [self.experiment], tag_filter(tags), order_by=["attributes.start_time ASC"], max_results=1
        )
        return found[0] if found else None

    def alias(self, name: str) -> str | None:
        """The version that `name` ("champion", "challenger") points to, or None."""
        return self.aliases().get(name)

    def aliases(self) -> dict[str, str]:
        """Every alias and the version that it points to."""
        found = with_retries(lambda: self.client.search_registered_models(f"name = '{MODEL}'"), self._uri)
        return {name: str(version) for model in found for name, version in model.aliases.items()}

    def set_alias(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Tag `version` with the evidence, then point `name` to it; KeyError where there is no such version."""
        self.version_tags(version)

        def point() -> None:
            self._tag_version(version, tags)
            self.client.set_registered_model_alias(MODEL, name, version)

        with self.lock("aliases"):
            with_retries(point, self._uri)

    def registered(self, version: str) -> "ModelVersion":
        """A version as MLflow holds it; KeyError where it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            return with_retries(lambda: self.client.get_model_version(MODEL, version), self._uri)
        except MlflowException as error:
            raise KeyError(f"{MODEL} has no version {version}") from error

    def version_tags(self, version: str) -> dict[str, str]:
        """The tags of a version; KeyError where it does not exist."""
        return dict(self.registered(version).tags)

    def find_version(self, adapter: str) -> str | None:
        """The newest version made from the adapter with this fingerprint, or None."""
        found = with_retries(lambda: self._versions({"fingerprint": adapter}), self._uri)
        return str(found[0].version) if found else None

    def remove_alias(self, name: str) -> None:
        """Let `name` point to nothing."""
        with self.lock("aliases"):
            with_retries(lambda: self.client.delete_registered_model_alias(MODEL, name), self._uri)

    def model_tags(self) -> dict[str, str]:
        """The tags of the registered model; none where nothing was registered yet."""
        models = with_retries(lambda: self.client.search_registered_models(f"name = '{MODEL}'"), self._uri)
        return {name: value for model in models for name, value in model.tags.items()}

    def tag_model(self, name: str, value: str) -> None:
        """Set one tag of the registered model."""
        with_retries(lambda: self.client.set_registered_model_tag(MODEL, name, value), self._uri)

    def versions(self) -> dict[str, dict[str, str]]:
        """Every version that exists and its tags, oldest first."""
        versions = with_retries(lambda: self.client.search_model_versions(f"name = '{MODEL}'"), self._uri)
        return {str(one.version): dict(one.tags) for one in sorted(versions, key=lambda one: int(one.version))}

    def tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        """Add tags to a version; KeyError where it does not exist."""
        self.version_tags(version)
        with_retries(lambda: self._tag_version(version, tags), self._uri)

    def remove_tag(self, version: str, name: str) -> None:
        """Take a tag off a version; nothing happens where it has none of that name."""
        if name in self.version_tags(version):
            with_retries(lambda: self.client.delete_model_version_tag(MODEL, version, name), self._uri)

    def scored_items(self, run_id: str) -> pl.DataFrame:
        """The per-item table that a run of `log_scores` stored; ValueError where it is not what was logged."""

        def fetch() -> pl.DataFrame:
            with tempfile.TemporaryDirectory() as folder:
                return read_table(Path(self.client.download_artifacts(run_id, "items.parquet", folder)))

        items = with_retries(fetch, self._uri)
        expected = self.client.get_run(run_id).data.tags.get("items_hash")
        if content_hash(items) != expected:
            raise ValueError(f"the items of run {run_id} have hash {content_hash(items)}, not {expected}")
        return items

    def scored_metrics(self, run_id: str) -> list[Metric]:
        """The metrics that a run of `log_scores` stored, with that run's id."""

        def fetch() -> list[Metric]:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(self.client.download_artifacts(run_id, "metrics.json", folder))
                return [Metric(**row) for row in json.loads(path.read_text("utf-8"))]

        return [replace(metric, mlflow_run_id=run_id) for metric in with_retries(fetch, self._uri)]

    def attach(self, run_id: str, folder: Path, name: str) -> None:
        """Log all files of `folder` under `name` as artifacts of a run; those of that name are replaced."""
        safe = f"The files are safe in {folder}; run the asset again once MLflow answers"
        with_retries(lambda: self.client.log_artifacts(run_id, str(folder), name), self._uri, safe)

    @property
    def _uri(self) -> str:
        return self.client.tracking_uri

    def _training_logged(
        self, record: AdapterRecord, folder: Path, curve: Sequence[Mapping[str, float]], tags: Mapping[str, str]
    ) -> tuple[str, str]:
        identity = {name: tags[name] for name in ("fingerprint", "weights_sha256")}
        if versions := self._versions(identity):
            return str(versions[0].run_id), str(versions[0].version)
        now = int(time.time() * 1000)
        run = self.run_with(identity) or self.client.create_run(
            self.experiment,
            run_name=f"{record.name}/{tags.get('batch') or record.fingerprint[:8]}",
            tags=dict(tags),
            start_time=now - int(record.seconds * 1000),
        )
        run_id = run.info.run_id
        if run.info.status != "FINISHED":
            self._log_run(run, record, curve)
            self.client.set_terminated(run_id, "FINISHED", end_time=now)
        versions = dict(record.data_versions)
        self.client.log_text(run_id, json.dumps(versions, sort_keys=True, indent=1), DATA_VERSIONS)
        model = self._uploaded_model(run_id, record.name, folder, identity)
        self._ensure_registered_model()
        version = self.client.create_model_version(
            MODEL,
            source=model.artifact_location,
            run_id=run_id,
            model_id=model.model_id,
            tags={**tags, "model_id": model.model_id, "data_versions": fingerprint(versions)},
            description=f"{record.method} on {record.base}, made by the asset {record.name}",
        )
        return run_id, str(version.version)

    def _log_run(self, run: "Run", record: AdapterRecord, curve: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        facts = {**record.spec, "base": record.base, "base_revision": record.base_revision, "method": record.method}
        log_parameters(self.client, run, facts)
        log_numbers(self.client, run, totals(record), curve)
        run_id = run.info.run_id
        data = [
            DatasetInput(Dataset(name, version[:DIGEST_LENGTH], "dagster asset", json.dumps({"asset": name})))
            for name, version in record.data_versions.items()
        ]
        self.client.log_inputs(run_id, data)
        self.client.log_text(run_id, to_json(record), RECORD)

    def _uploaded_model(self, run_id: str, name: str, folder: Path, identity: Mapping[str, str]) -> "LoggedModel":
        from mlflow.entities import LoggedModelStatus

        found = self.client.search_logged_models([self.experiment], filter_string=tag_filter(identity), max_results=1)
        model = found[0] if found else None
        if model is None:
            model = self.client.create_logged_model(
                self.experiment, name=name, source_run_id=run_id, tags=dict(identity), model_type="adapter"
            )
        if model.status != LoggedModelStatus.READY:
            self.client.log_model_artifacts(model.model_id, str(folder))
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return model

    def _scores_logged(
        self, metrics: Sequence[Metric], items: pl.DataFrame, items_hash: str, versions: Mapping[str, str]
    ) -> str:
        run = self.run_with({"items_hash": items_hash}) or self.client.create_run(
            self.experiment,
            run_name=f"benchmark_scores/{self.tags.get('batch') or items_hash[:8]}",
            tags={**self.tags, "items_hash": items_hash},
        )
        run_id = run.info.run_id
        if run.info.status != "FINISHED":
            self._log_scores(run, metrics, items)
            self.client.set_terminated(run_id, "FINISHED")
        for model, version in versions.items():
            mine = [metric for metric in metrics if metric.model == model]
            self._tag_version(version, {score_tag(metric): score_text(metric, run_id) for metric in mine})
        return run_id

    def _log_scores(self, run: "Run", metrics: Sequence[Metric], items: pl.DataFrame) -> None:
        numbers: dict[str, float] = {}
        for metric in metrics:
            name = f"{metric.model}/{metric.suite}/{metric.split}/{metric.metric}"
            numbers |= {name: metric.value, f"{name}/n": metric.n}
            numbers |= {f"{name}/ci_low": metric.ci_low, f"{name}/ci_high": metric.ci_high}
            numbers |= {f"{name}/unanswerable": metric.unanswerable} if metric.unanswerable else {}
        log_numbers(self.client, run, numbers)
        run_id = run.info.run_id
        rows = [asdict(metric) for metric in metrics]
        self.client.log_text(run_id, json.dumps(rows, sort_keys=True, indent=1), "metrics.json")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "items.parquet"
            items.write_parquet(path)
            self.client.log_artifact(run_id, str(path))

    def _versions(self, tags: Mapping[str, str]) -> list["ModelVersion"]:
        """Newest first."""
        found = self.client.search_model_versions(f"name = '{MODEL}' and {tag_filter(tags)}")
        return sorted(found, key=lambda version: int(version.version), reverse=True)

    def _tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self.client.set_model_version_tag(MODEL, version, name, value)

    def _ensure_registered_model(self) -> None:
        from mlflow.exceptions import MlflowException

        if self.client.search_registered_models(f"name = '{MODEL}'"):
            return
        try:
            self.client.create_registered_model(MODEL, description="Adapters, each with the evidence for its alias")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
