"""The partitions of the asset graph."""

import dagster as dg

BATCHES_NAME = "batches"
BATCHES = dg.DynamicPartitionsDefinition(name=BATCHES_NAME)
"""One key per batch of raw instructions; a key exists once somebody asked for it."""

FIRST_BATCH = "first"
"""What the first batch is called where nobody named it."""
