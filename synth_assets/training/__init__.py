"""The training engine: plain functions around TRL and PEFT, without assets."""
