"""Filter instructions and preference pairs, recording a reason for every rejected row, and split them for training."""
