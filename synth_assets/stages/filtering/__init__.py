"""Which raw instructions are kept, and why the others are not."""
