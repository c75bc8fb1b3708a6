"""The `synth` command: `app.py` reads the arguments, each other module runs one command."""
