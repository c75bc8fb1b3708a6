"""Text generation with vLLM (docs.vllm.ai) on CUDA devices; vLLM is imported when a model is loaded."""

import json
from collections.abc import Sequence
from pathlib import Path

from synth_assets.llm.loading import load_tokenizer
from synth_assets.llm.protocols import Completion, Sampling
from synth_assets.llm.text_codec import TextCodec
from synth_assets.llm.transformers_generator import check_request, default_stop_ids, stop_ids
from synth_assets.schemas.tier import Tier

MEMORY_RATE = 0.9  # share of GPU memory, vLLM's default
LORA_RANKS = (8, 16, 32, 64, 128, 256, 512)
"""Values that vLLM accepts for `max_lora_rank`, for which it reserves memory."""

MIN_LOGIT_BIAS = -100.0  # lowest logit bias that vLLM accepts
CONTEXT_TOKENS = 8_192  # context limit; the cache of a 131,072-token context would not fit on small cards


class VllmGenerator(TextCodec):
    """Causal language model in vLLM, with a seed per request.

    Completions come in the order of the prompts. Texts may differ between batches within rounding.
    """

    def __init__(self, folder: Path, tier: Tier, *, model: str, revision: str, adapter: Path | None = None) -> None:
        """Load the weights in `folder`, and the LoRA adapter in the folder `adapter` if given."""
        import vllm  # pyright: ignore[reportMissingImports]
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        self.model, self.revision = model, revision
        self.engine = f"vllm {vllm.__version__}"
        self.context_tokens = min(CONTEXT_TOKENS, _model_context(folder))
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
            generation_config="vllm",  # ignore the model's sampling defaults
            disable_log_stats=True,
        )
        self._default_stops = default_stop_ids(_configured_stops(folder), self._tokenizer)

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Return one completion per prompt, in order."""
        limits = check_request(prompts, seeds, sampling, self.context_tokens)
        stops = self._default_stops | stop_ids(self._tokenizer, sampling.stop)
        texts: list[list[int]] = [[] for _ in prompts]
        if sampling.banned_first:
            texts = self._run(prompts, seeds, [1] * len(prompts), sampling, stops)
        unfinished = [row for row, ids in enumerate(texts) if len(ids) < limits[row] and not stops.intersection(ids)]
        continuations = self._run(
            [[*prompts[row], *texts[row]] for row in unfinished],
            [seeds[row] + len(texts[row]) for row in unfinished],
            [limits[row] - len(texts[row]) for row in unfinished],
            Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens),
            stops,
        )
        for row, ids in zip(unfinished, continuations, strict=True):
            texts[row] = [*texts[row], *ids]
        return [self._completion(prompt, ids, stops) for prompt, ids in zip(prompts, texts, strict=True)]

    def _run(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        limits: Sequence[int],
        sampling: Sampling,
        stops: frozenset[int],
    ) -> list[list[int]]:
        """Return the new ids of each row, including its stop token.

        vLLM applies a logit bias to a whole request, so banned first tokens need a request for a single token.
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
                logit_bias=dict.fromkeys(sampling.banned_first, MIN_LOGIT_BIAS) or None,
                detokenize=False,
            )
            for seed, tokens in zip(seeds, limits, strict=True)
        ]
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self._network.generate(requests, parameters, lora_request=self._lora, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


def lora_rank(adapter: Path | None) -> int:
    """Return the smallest of LORA_RANKS that is at least an adapter's rank.

    Raises:
        ValueError: the rank is above the largest of LORA_RANKS.
    """
    rank = json.loads((adapter / "adapter_config.json").read_text("utf-8"))["r"] if adapter else 1
    if rank > LORA_RANKS[-1]:
        raise ValueError(f"the rank of {adapter} must be at most {LORA_RANKS[-1]} for vLLM, got {rank}")
    return next(limit for limit in LORA_RANKS if rank <= limit)


def _model_context(folder: Path) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return int(config.get_text_config().max_position_embeddings)


def _configured_stops(folder: Path) -> int | list[int] | None:
    path = folder / "generation_config.json"
    return json.loads(path.read_text("utf-8")).get("eos_token_id") if path.is_file() else None
