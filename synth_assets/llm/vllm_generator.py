"""Text generation through vLLM (docs.vllm.ai), on CUDA devices; vLLM is imported when a model is loaded."""

import json
from collections.abc import Sequence
from pathlib import Path

from synth_assets.llm.chat_encoding import encode_chat, encode_user_turn
from synth_assets.llm.loading import load_tokenizer
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.llm.transformers_generator import check_request, own_stop_ids, stop_ids
from synth_assets.schemas.tier import Tier

MEMORY_RATE = 0.9  # of the GPU's memory, vLLM's own default
LORA_RANKS = (8, 16, 32, 64, 128, 256, 512)
"""The values that vLLM takes as `max_lora_rank`; it keeps room for adapters of that rank."""

FORBIDDEN = -100.0  # the strongest bias vLLM takes
CONTEXT_TOKENS = 8_192  # longest prompt and completion; the cache of a 131,072 token context would not fit small cards


class VllmGenerator:
    """A causal language model in vLLM; each request carries its own seed.

    Prompts, seeds and order are those of every engine; texts agree with another batch's within rounding.
    """

    def __init__(self, folder: Path, tier: Tier, *, model: str, revision: str, adapter: Path | None = None) -> None:
        """Load the weights in `folder`, with the LoRA adapter in another folder."""
        import vllm  # pyright: ignore[reportMissingImports]
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        self.model, self.revision = model, revision
        self.engine = f"vllm {vllm.__version__}"
        self.context_tokens = min(CONTEXT_TOKENS, _longest(folder))
        self._tokenizer = load_tokenizer(folder)
        self._lora = LoRARequest(adapter.name, 1, str(adapter)) if adapter else None
        self._network = vllm.LLM(
            model=str(folder),
            dtype=tier.dtype,
            quantization="bitsandbytes" if tier.quantisation != "none" else None,
            load_format="bitsandbytes" if tier.quantisation != "none" else "safetensors",
            trust_remote_code=False,
            gpu_memory_utilization=MEMORY_RATE,
            max_model_len=self.context_tokens,
            enable_lora=adapter is not None,
            max_lora_rank=lora_rank(adapter),
            generation_config="vllm",  # no sampling settings but the request's
            disable_log_stats=True,
        )
        self._own_stops = own_stop_ids(_configured_stops(folder), self._tokenizer)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the assistant speaks."""
        return encode_chat(self._tokenizer, messages)[0]

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the user speaks next."""
        return encode_user_turn(self._tokenizer, messages)

    def encode_template(self, template: str) -> list[int]:
        """Token ids of trusted text, in which control tokens are meant."""
        return self._tokenizer.encode(template, add_special_tokens=False)

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order."""
        room = check_request(prompts, seeds, sampling, self.context_tokens)
        stops = self._own_stops | stop_ids(self._tokenizer, sampling.stop)
        texts: list[list[int]] = [[] for _ in prompts]
        if sampling.banned_first:
            texts = self._run(prompts, seeds, [1] * len(prompts), sampling, stops)
        going = [row for row, ids in enumerate(texts) if len(ids) < room[row] and not stops.intersection(ids)]
        grown = self._run(
            [[*prompts[row], *texts[row]] for row in going],
            [seeds[row] + len(texts[row]) for row in going],
            [room[row] - len(texts[row]) for row in going],
            Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens),
            stops,
        )
        for row, ids in zip(going, grown, strict=True):
            texts[row] = [*texts[row], *ids]
        return [self._completion(prompt, ids, stops) for prompt, ids in zip(prompts, texts, strict=True)]

    def _run(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        room: Sequence[int],
        sampling: Sampling,
        stops: frozenset[int],
    ) -> list[list[int]]:
        """New ids of each row, its stop token included.

        vLLM's bias holds for a whole request, so tokens that are banned at first are banned in a request of one token.
        """
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        if not prompts:
            return []
        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=tokens,
                seed=seed % 2**63,
                stop_token_ids=sorted(stops),
                logit_bias=dict.fromkeys(sampling.banned_first, FORBIDDEN) or None,
                detokenize=False,
            )
            for seed, tokens in zip(seeds, room, strict=True)
        ]
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self._network.generate(requests, parameters, lora_request=self._lora, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def _completion(self, prompt: Sequence[int], ids: list[int], stops: frozenset[int]) -> Completion:
        stopped = bool(ids) and ids[-1] in stops
        words = ids[:-1] if stopped else ids
        text = self._tokenizer.decode(words, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Completion(str(text), "stop" if stopped else "length", len(prompt), len(words))


def lora_rank(adapter: Path | None) -> int:
    """Return the smallest of LORA_RANKS that holds an adapter.

    Raises:
        ValueError: its rank is above them all.
    """
    rank = json.loads((adapter / "adapter_config.json").read_text("utf-8"))["r"] if adapter else 1
    if rank > LORA_RANKS[-1]:
        raise ValueError(f"the rank of {adapter} must be at most {LORA_RANKS[-1]} for vLLM, got {rank}")
    return next(room for room in LORA_RANKS if rank <= room)


def _longest(folder: Path) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return int(config.get_text_config().max_position_embeddings)


def _configured_stops(folder: Path) -> int | list[int] | None:
    path = folder / "generation_config.json"
    return json.loads(path.read_text("utf-8")).get("eos_token_id") if path.is_file() else None
