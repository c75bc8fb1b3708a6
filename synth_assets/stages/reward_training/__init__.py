"""Train a reward model from preference pairs and measure its accuracy on held-out pairs."""
