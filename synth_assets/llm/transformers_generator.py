"""Text generation with Transformers: static batches with an independent random stream per row."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from synth_assets.llm.chat_encoding import end_of_turn
from synth_assets.llm.gumbel_noise import gumbel_noise, seed_tensor
from synth_assets.llm.nucleus import LARGE_VOCABULARY, nucleus, sample_from_nucleus
from synth_assets.llm.protocols import Completion, Sampling
from synth_assets.llm.text_codec import TextCodec

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

BATCH_ROWS = 64  # one block; on one CPU core as fast as 128 rows, and 1.2 times as fast as 32
COMPACT_AT = 0.75  # drop finished rows once the unfinished share is below this; moving the cache has a cost


class TransformersGenerator(TextCodec):
    """Causal language model in this process, sampled with the Gumbel-max trick.

    The same block of rows gives the same bytes on one machine. A row's text is independent of the other rows, except
    that rounding in the forward pass can change the choice between two almost equally likely tokens.
    """

    def __init__(
        self,
        network: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        model: str,
        revision: str,
        virtual_tokens: "torch.Tensor | None" = None,
    ) -> None:
        """Wrap a loaded model; `virtual_tokens` (count, width) come from a prompt-tuning adapter."""
        import transformers

        self.model, self.revision = model, revision
        self.engine = f"transformers {transformers.__version__}"
        self.batch_rows = BATCH_ROWS
        self._network, self._tokenizer = network.eval(), tokenizer
        self._virtual_tokens = virtual_tokens
        self.context_tokens = context_tokens(network) - self._virtual_count()
        self._default_stops = default_stop_ids(getattr(network.generation_config, "eos_token_id", None), tokenizer)

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Return one completion per prompt, in order; halve the batch size whenever memory runs out."""
        import torch

        limits = check_request(prompts, seeds, sampling, self.context_tokens)
        stops = self._default_stops | stop_ids(self._tokenizer, sampling.stop)
        completions: list[Completion] = []
        while (start := len(completions)) < len(prompts):
            rows = slice(start, start + self.batch_rows)
            try:
                with torch.inference_mode():
                    texts = self._generate_batch(prompts[rows], seeds[rows], limits[rows], sampling, stops)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if self.batch_rows == 1:
                    advice = "use a smaller model, quantisation, or fewer tokens"
                    raise RuntimeError(f"{self.model}: out of memory with one row; {advice}") from error
                texts = None
            if texts is None:  # outside the handler, because the traceback keeps the failed batch's tensors alive
                self._halve_batch()
                continue
            completions += [self._completion(p, ids, stops) for p, ids in zip(prompts[rows], texts, strict=True)]
        return completions

    def _virtual_count(self) -> int:
        return 0 if self._virtual_tokens is None else len(self._virtual_tokens)

    def _halve_batch(self) -> None:
        import torch

        self.batch_rows //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logging.getLogger(__name__).warning(
            "%s: out of memory; batch size reduced to %d rows, so texts may differ within rounding",
            self.model,
            self.batch_rows,
        )

    def _generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        limits: Sequence[int],
        sampling: Sampling,
        stops: frozenset[int],
    ) -> list[list[int]]:
        """Return the new ids of each row with its stop token.

        Drops finished rows from the batch, which Transformers' own `generate` does not do.
        """
        import torch

        rows = list(range(len(prompts)))  # position in the batch -> row
        texts: list[list[int]] = [[] for _ in rows]
        streams = seed_tensor(seeds, self._network.device)
        inputs, mask = self._first_inputs(prompts)
        cache = None
        for step in range(max(limits)):
            logits, cache = self._forward(inputs, mask, cache)
            chosen = sample_token(logits, streams, step, sampling)
            unfinished: list[int] = []
            for position, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
                if not _finished(texts[row], limits[row], stops):
                    texts[row].append(token)
                    if not _finished(texts[row], limits[row], stops):
                        unfinished.append(position)
            if not unfinished:
                break
            if len(unfinished) < COMPACT_AT * len(rows):
                keep = torch.tensor(unfinished, device=mask.device)
                cache.batch_select_indices(keep)
                mask, streams, chosen = mask[keep], streams[keep], chosen[keep]
                rows = [rows[position] for position in unfinished]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            inputs = {"input_ids": chosen[:, None]}
        return texts

    def _forward(
        self, inputs: "dict[str, torch.Tensor]", mask: "torch.Tensor", cache: "Cache | None"
    ) -> "tuple[torch.Tensor, Cache]":
        """Return (rows, vocabulary) logits of the last position and the extended cache; padding has no position id."""
        width = next(iter(inputs.values())).shape[1]
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -width:]
        output = self._network(
            **inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1], output.past_key_values

    def _first_inputs(self, prompts: Sequence[Sequence[int]]) -> "tuple[dict[str, torch.Tensor], torch.Tensor]":
        """Return the left-padded prompts and their (rows, width) mask, with virtual tokens between padding and prompt.

        PEFT puts virtual tokens before the padding, which silently corrupts all rows but the longest.
        """
        import torch

        device, count = self._network.device, self._virtual_count()
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.int64)
        mask = torch.zeros(len(prompts), count + width, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        if self._virtual_tokens is None:
            return {"input_ids": ids}, mask
        embedded = self._network.get_input_embeddings()(ids)
        embeds = torch.cat([embedded.new_zeros(len(prompts), count, embedded.shape[2]), embedded], dim=1)
        for row, prompt in enumerate(prompts):
            embeds[row, width - len(prompt) :][:count] = self._virtual_tokens
        return {"inputs_embeds": embeds}, mask


def sample_token(logits: "torch.Tensor", seeds: "torch.Tensor", step: int, sampling: Sampling) -> "torch.Tensor":
    """Sample the next token of each row, (rows,) int64, from (rows, vocabulary) logits.

    Applies temperature and top-p, then adds Gumbel noise and takes the argmax. Temperature 0 takes the argmax directly.
    """
    import torch

    logits = logits.float()
    if step == 0 and sampling.banned_first:
        logits[:, list(sampling.banned_first)] = -torch.inf
    if sampling.temperature == 0:
        return logits.argmax(dim=1)
    logits = logits / sampling.temperature
    if sampling.top_p < 1 and logits.shape[1] >= LARGE_VOCABULARY:
        return sample_from_nucleus(logits, seeds, step, sampling.top_p)
    if sampling.top_p < 1:
        logits = nucleus(logits, sampling.top_p)
    return (logits + gumbel_noise(seeds, step, logits.shape[1])).argmax(dim=1)


def check_request(
    prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling, context: int
) -> list[int]:
    """Validate a request and return the maximum number of new tokens per row. Raises ValueError if it is invalid."""
    if len(prompts) != len(seeds):
        raise ValueError(f"expected one seed per prompt, got {len(prompts)} prompts and {len(seeds)} seeds")
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or sampling.max_tokens < 1:
        raise ValueError(f"temperature must be at least 0, top_p in (0, 1], max_tokens at least 1, got {sampling}")
    for row, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise ValueError(f"prompt {row} must have 1 to {context - 1} tokens, got {len(prompt)}")
    return [min(sampling.max_tokens, context - len(prompt)) for prompt in prompts]


def stop_ids(tokenizer: "PreTrainedTokenizerBase", names: Sequence[str]) -> frozenset[int]:
    """Return the ids of control tokens by name. Raises ValueError if the vocabulary lacks one."""
    vocabulary = tokenizer.get_vocab()
    if missing := [name for name in names if name not in vocabulary]:
        raise ValueError(f"the tokenizer of {tokenizer.name_or_path} has no token {', '.join(map(repr, missing))}")
    return frozenset(vocabulary[name] for name in names)


def default_stop_ids(configured: int | list[int] | None, tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return a model's default stop ids: those of its generation config, end of text, and end of turn."""
    stops = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*stops, tokenizer.eos_token_id, end_of_turn(tokenizer)] if isinstance(i, int))


def context_tokens(network: "PreTrainedModel") -> int:
    """Return the context length of a model in tokens."""
    return int(network.config.get_text_config().max_position_embeddings)


def _finished(ids: Sequence[int], limit: int, stops: frozenset[int]) -> bool:
    return len(ids) >= limit or bool(ids and ids[-1] in stops)


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
