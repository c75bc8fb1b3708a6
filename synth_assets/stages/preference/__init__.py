"""Sample responses, score them with the reward model and build preference pairs."""
