"""Instruction tuning as software-defined assets."""
