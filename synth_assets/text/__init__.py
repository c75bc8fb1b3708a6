"""Text in bulk: word hashes, near-duplicates, decontamination and redaction of secrets."""
