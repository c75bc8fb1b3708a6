"""Data-quality checks, one file a stage."""
