"""Evaluation engine: benchmark suites, scoring, regression guards and paired comparison. No Dagster, no assets."""
