"""The `synth` command. `app.py` parses the arguments; each other module implements one command or serves several."""
