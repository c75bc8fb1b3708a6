"""Order and precision of asset metadata."""

import dagster as dg
import pytest

from resources.asset_metadata import presented


def test_pictures_come_first_and_ids_last() -> None:
    metadata = {
        "mlflow_run_id": "0f3a",
        "spec": dg.MetadataValue.json({}),
        "dagster/row_count": 3,
        "mlflow_run": dg.MetadataValue.url("http://127.0.0.1:5000/#/runs/0f3a"),
        "reason": "every clause passes",
        "tokens": 12,
        "outcome": "promoted",
        "curves": dg.MetadataValue.md("![loss](data:image/png;base64,AA)"),
    }
    expected = ["curves", "outcome", "reason", "mlflow_run", "dagster/row_count", "tokens", "spec", "mlflow_run_id"]
    assert list(presented(metadata)) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.123456, 0.1235), (6541.78, 6542.0), (7, 7), (True, True), ("x", "x")]
)
def test_floats_have_four_significant_digits(value: object, expected: object) -> None:
    assert presented({"value": value})["value"] == expected
