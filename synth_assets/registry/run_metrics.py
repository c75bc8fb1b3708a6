"""Parameters and metrics of a run in MLflow; logging them again adds nothing."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARAM_LENGTH = 6000  # of a parameter's value in MLflow's database
BATCH = 900  # metrics in one request; MLflow takes 1000


def log_parameters(client: "MlflowClient", run: "Run", facts: Mapping[str, Any]) -> None:
    """Log facts as parameters, cut where the database would refuse them."""
    from mlflow.entities import Param

    params = [Param(name, str(value)[:PARAM_LENGTH]) for name, value in sorted(facts.items())]
    client.log_batch(run.info.run_id, params=params)


def log_numbers(
    client: "MlflowClient", run: "Run", numbers: Mapping[str, float], curve: Sequence[Mapping[str, float]] = ()
) -> None:
    """Log metrics at times derived from the run's start: equal metrics are kept once by the store.

    Args:
        client: of the deployment.
        run: whose metrics they are.
        numbers: metrics of the whole run.
        curve: one mapping of metric to value for each logged step; "step" is the step, else its index.
    """
    from mlflow.entities import Metric

    at = run.info.start_time
    points = [Metric(name, value, at, 0) for name, value in numbers.items()]
    for index, row in enumerate(curve):
        step = int(row.get("step", index))
        points += [Metric(name, float(value), at + step, step) for name, value in row.items() if name != "step"]
    for start in range(0, len(points), BATCH):
        client.log_batch(run.info.run_id, metrics=points[start : start + BATCH])
