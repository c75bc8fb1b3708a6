"""Raw instructions: invented by a chat model from its own template, or imported."""
