"""The partitions of the asset graph."""

import dagster as dg

BATCHES = dg.DynamicPartitionsDefinition(name="batches")
"""One key per batch of raw instructions; a key exists once somebody asked for it."""
