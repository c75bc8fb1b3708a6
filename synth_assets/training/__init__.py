"""Training engine: plain functions around TRL and PEFT. No Dagster, no assets."""
