"""Client of the MLflow tracking server and model registry. No Dagster, no assets."""
