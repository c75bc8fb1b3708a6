"""What a model is measured on: the items of every suite, and the answers that count."""
