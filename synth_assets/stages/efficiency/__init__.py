"""Stage efficiency: what rank, target modules and quantisation of a LoRA adapter cost and give."""
