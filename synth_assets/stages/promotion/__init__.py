"""Which adapter is served, decided from the evidence."""
