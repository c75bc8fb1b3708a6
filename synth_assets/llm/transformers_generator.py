"""Text generation through Transformers: static batches, each row with its own random stream."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from synth_assets.llm.chat_encoding import encode_chat, encode_user_turn, end_of_turn
from synth_assets.llm.gumbel_noise import gumbel_noise, seed_tensor
from synth_assets.llm.nucleus import LARGE_VOCABULARY, nucleus, sample_from_nucleus
from synth_assets.llm.protocols import Completion, Message, Sampling

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

BATCH_ROWS = 64  # a block; on one CPU core 64 rows are as fast as 128, and 1.2 times as fast as 32
COMPACT_AT = 0.75  # finished rows leave the batch once fewer than this share is unfinished: moving the cache costs


class TransformersGenerator:
    """A causal language model in this process, by greedy choice over noised log-probabilities.

    The same block of rows gives the same bytes on one machine. A row's text does not depend on the others but for
    rounding in the forward pass, which changes a text where two tokens are almost equally good.
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
        """Take a loaded model; `virtual_tokens` (count, width) are a prompt-tuning adapter's."""
        import transformers

        self.model, self.revision = model, revision
        self.engine = f"transformers {transformers.__version__}"
        self.batch_rows = BATCH_ROWS
        self._network, self._tokenizer = network.eval(), tokenizer
        self._virtual = virtual_tokens
        self.context_tokens = context_tokens(network) - self._virtual_count()
        self._own_stops = own_stop_ids(getattr(network.generation_config, "eos_token_id", None), tokenizer)

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
        """One completion per prompt, in order; out of memory makes the forward batches smaller from there on."""
        import torch

        room = check_request(prompts, seeds, sampling, self.context_tokens)
        stops = self._own_stops | stop_ids(self._tokenizer, sampling.stop)
        completions: list[Completion] = []
        while (start := len(completions)) < len(prompts):
            rows = slice(start, start + self.batch_rows)
            try:
                with torch.inference_mode():
                    texts = self._continue(prompts[rows], seeds[rows], room[rows], sampling, stops)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if self.batch_rows == 1:
                    advice = "take a smaller model, quantisation, or fewer tokens"
                    raise RuntimeError(f"{self.model}: out of memory with one row; {advice}") from error
                texts = None
            if texts is None:  # not in the handler: the error's traceback holds the tensors of the failed batch
                self._shrink()
                continue
            completions += [self._completion(p, ids, stops) for p, ids in zip(prompts[rows], texts, strict=True)]
        return completions

    def _virtual_count(self) -> int:
        return 0 if self._virtual is None else len(self._virtual)

    def _shrink(self) -> None:
        import torch

        self.batch_rows //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logging.getLogger(__name__).warning(
            "%s: out of memory; forward batches of %d rows from here on, whose texts may differ within rounding",
            self.model,
            self.batch_rows,
        )

    def _completion(self, prompt: Sequence[int], ids: list[int], stops: frozenset[int]) -> Completion:
        stopped = bool(ids) and ids[-1] in stops
        words = ids[:-1] if stopped else ids
        return Completion(
            text=str(self._tokenizer.decode(words, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
            finish_reason="stop" if stopped else "length",
            prompt_tokens=len(prompt),
            completion_tokens=len(words),
        )

    def _continue(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        room: Sequence[int],
        sampling: Sampling,
        stops: frozenset[int],
    ) -> list[list[int]]:
        """The new ids of each row with its stop token; finished rows leave the batch, which `generate` cannot do."""
        import torch

        rows = list(range(len(prompts)))  # whose token stands where in the batch
        texts: list[list[int]] = [[] for _ in rows]
        streams = seed_tensor(seeds, self._network.device)
        inputs, mask = self._first_inputs(prompts)
        cache = None
        for step in range(max(room)):
            logits, cache = self._forward(inputs, mask, cache)
            chosen = sample_token(logits, streams, step, sampling)
            going: list[int] = []
            for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
                if not _finished(texts[row], room[row], stops):
                    texts[row].append(token)
                    if not _finished(texts[row], room[row], stops):
                        going.append(place)
            if not going:
                break
            if len(going) < COMPACT_AT * len(rows):
                keep = torch.tensor(going, device=mask.device)
                cache.batch_select_indices(keep)
                mask, streams, chosen = mask[keep], streams[keep], chosen[keep]
                rows = [rows[place] for place in going]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            inputs = {"input_ids": chosen[:, None]}
        return texts

    def _forward(
        self, inputs: "dict[str, torch.Tensor]", mask: "torch.Tensor", cache: "Cache | None"
    ) -> "tuple[torch.Tensor, Cache]":
        """(rows, vocabulary) logits after the inputs, and the cache grown by them; a row's pads have no position."""
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
        """The prompts padded on the left, and their (rows, width) mask; virtual tokens stand between pads and prompt.

        PEFT puts virtual tokens before the pads, which silently spoils rows shorter than the longest.
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
        if self._virtual is None:
            return {"input_ids": ids}, mask
        words = self._network.get_input_embeddings()(ids)
        embeds = torch.cat([words.new_zeros(len(prompts), count, words.shape[2]), words], dim=1)
        for row, prompt in enumerate(prompts):
            embeds[row, width - len(prompt) :][:count] = self._virtual
        return {"inputs_embeds": embeds}, mask


def sample_token(logits: "torch.Tensor", seeds: "torch.Tensor", step: int, sampling: Sampling) -> "torch.Tensor":
    """The next token of each row, (rows,) int64, from (rows, vocabulary) logits.

    Temperature and top-p shape the distribution, then noise draws from it (`gumbel_noise`); temperature 0 takes the
    greatest logit.
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
    """How many tokens each row may grow by; ValueError where the request cannot be met."""
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or sampling.max_tokens < 1:
        raise ValueError(f"temperature must be at least 0, top_p in (0, 1], max_tokens at least 1: {sampling}")
    for row, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise ValueError(f"prompt {row} has {len(prompt)} tokens; the model takes 1 to {context - 1}")
    return [min(sampling.max_tokens, context - len(prompt)) for prompt in prompts]


def stop_ids(tokenizer: "PreTrainedTokenizerBase", names: Sequence[str]) -> frozenset[int]:
    """Ids of control tokens by name; ValueError where the vocabulary has no such token."""
    vocabulary = tokenizer.get_vocab()
    if missing := [name for name in names if name not in vocabulary]:
        raise ValueError(f"the tokenizer of {tokenizer.name_or_path} has no token {', '.join(map(repr, missing))}")
    return frozenset(vocabulary[name] for name in names)


def own_stop_ids(configured: int | list[int] | None, tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """What ends a text by the model's own files: the generation settings' tokens, end of text and end of a turn."""
    stops = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*stops, tokenizer.eos_token_id, end_of_turn(tokenizer)] if isinstance(i, int))


def context_tokens(network: "PreTrainedModel") -> int:
    """The longest text of prompt and completion that the model was made for."""
    return int(network.config.get_text_config().max_position_embeddings)


def _finished(ids: Sequence[int], room: int, stops: frozenset[int]) -> bool:
    return len(ids) >= room or bool(ids and ids[-1] in stops)


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
