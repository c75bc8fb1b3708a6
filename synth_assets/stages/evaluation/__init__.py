"""What base and adapters score, item by item, and how they compare."""
