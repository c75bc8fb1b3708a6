"""What each `synth` command does; cli.py only reads the arguments."""
