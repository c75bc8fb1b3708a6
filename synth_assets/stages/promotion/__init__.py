"""Decide which adapter is served, and move the `@champion` alias of the model registry."""
