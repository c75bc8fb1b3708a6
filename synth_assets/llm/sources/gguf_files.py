"""Conversion of a GGUF file to a Transformers folder: dequantised weights as safetensors, config and tokenizer."""

from contextlib import redirect_stderr
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.quiet import silence_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRE_TOKENIZERS = frozenset({"smollm"})
"""Values of `tokenizer.ggml.pre` whose tokenizers split digits before anything else, which Transformers does not read.

Without it a number after a blank line is split as the model never saw it.
"""


def convert_gguf(source: Path, folder: Path) -> dict[str, str]:
    """Write the model of a GGUF file to `folder`, in float32 so that no dequantised value is rounded.

    `save_pretrained` refuses a model that was read from GGUF, so its weights are put into a model built from the same
    configuration without the quantisation.

    Returns:
        What the conversion was made with: the versions of the libraries.

    Raises:
        ModelFilesError: Transformers cannot read the file.
    """
    silence_libraries()
    import gguf
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    from_file: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    try:
        with redirect_stderr(StringIO()):  # a progress bar that has no switch
            read = transformers.AutoModelForCausalLM.from_pretrained(source.parent, **from_file, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, **from_file)
        dialect = _text_field(gguf.GGUFReader(source), "tokenizer.ggml.pre")
    except (ValueError, LookupError, OSError, NotImplementedError) as error:
        said = " ".join(str(error).split())
        raise ModelFilesError(f"{source.name}: Transformers cannot read this GGUF file ({said})") from error
    settings = read.config.to_dict()
    for name in ("quantization_config", "_model_name_or_path"):
        settings.pop(name, None)
    with torch.device("meta"):
        plain = type(read)(type(read.config)(**settings))
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    if dialect in PRE_TOKENIZERS:
        _split_digits_first(tokenizer)
    tokenizer.model_max_length = int(read.config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes it for the owner alone
    return {name: version(name) for name in ("transformers", "gguf", "torch")}


def _text_field(reader: Any, name: str) -> str:  # noqa: ANN401 - gguf has no types
    """Return a text of a GGUF file's metadata; empty where it has none of that name."""
    field = reader.get_field(name)
    return str(field.contents()) if field is not None else ""


def _split_digits_first(tokenizer: "PreTrainedTokenizerBase") -> None:
    from tokenizers import pre_tokenizers

    backend: Any = tokenizer.backend_tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
