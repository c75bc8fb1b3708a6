"""Files of a home: atomic writes, checkpointed blocks, manifests, lineage and retractions."""
