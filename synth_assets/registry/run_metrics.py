"""Parameters and metrics of an MLflow run; logging them again adds nothing."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

PARAM_LENGTH = 6000  # longest parameter value in MLflow's database
DIGEST_LENGTH = 36  # longest dataset digest in MLflow's database
BATCH = 900  # metrics per request; MLflow's limit is 1000
MODEL_BATCH = 100  # metrics of a logged model per request: MLflow looks for repeated ones in groups of 100


def log_parameters(client: "MlflowClient", run: "Run", parameters: Mapping[str, Any]) -> None:
    """Log parameters, truncated to the length limit of MLflow's database."""
    from mlflow.entities import Param

    params = [Param(name, str(value)[:PARAM_LENGTH]) for name, value in sorted(parameters.items())]
    client.log_batch(run.info.run_id, params=params)


def log_numbers(
    client: "MlflowClient", run: "Run", numbers: Mapping[str, float], curve: Sequence[Mapping[str, float]] = ()
) -> None:
    """Log metrics with timestamps derived from the run's start, so that the store drops repeated ones.

    Args:
        client: the MLflow client.
        run: run of the metrics.
        numbers: metrics of the whole run.
        curve: metrics of each logged step; "step" is the step, default: the index.
    """
    from mlflow.entities import Metric

    start_ms = run.info.start_time
    points = [Metric(name, value, start_ms, 0) for name, value in numbers.items()]
    for index, row in enumerate(curve):
        step = int(row.get("step", index))
        points += [Metric(name, float(value), start_ms + step, step) for name, value in row.items() if name != "step"]
    log_points(client, run.info.run_id, points)


def log_points(client: "MlflowClient", run_id: str, points: "Sequence[Metric]") -> None:
    """Log metrics in batches; those of a logged model are added to the model too."""
    size = MODEL_BATCH if any(point.model_id for point in points) else BATCH
    for start in range(0, len(points), size):
        client.log_batch(run_id, metrics=points[start : start + size])
