"""Read files of records: JSON, JSONL, CSV, TSV and Parquet, plain or compressed, in bounded memory."""
