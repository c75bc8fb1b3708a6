"""Generate instructions with Magpie, and import instructions and preference pairs from files."""
