"""Adapters trained on the data, each a version of the registered model."""
