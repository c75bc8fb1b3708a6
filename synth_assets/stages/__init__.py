"""One package per stage of the pipeline: `assets.py` holds its Dagster assets, every other module plain functions.

A stage is a Dagster group, a file of `checks/` and a folder of `tests/` of the same name.
Stages do not import one another.
"""
