"""lm-eval's model class, which cuts what is too long from the left without a word, made to leave such items out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from synth_assets.records import CONTEXT_EXCEEDED, TEMPLATE_REFUSED

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

REFUSED_TEXT = "\U0010fffd refused by the chat template"
"""Stands for a prompt that the chat template does not write; a private character, so that no prompt holds it."""
UNASKED_LOGPROB = -1.0  # finite, so that a task computes with it; whoever reads the score leaves the item out


class BoundedModel(Protocol):
    """A language model of lm-eval; `left_out` says which items it did not take: item id to reason."""

    left_out: dict[str, str]


def bounded_model(arguments: Mapping[str, Any], reserved_tokens: int) -> BoundedModel:
    """Return lm-eval's model around a loaded one; documents have the field `item_id`.

    An item is left out where its prompt with one of its choices exceeds the context, where its prompt leaves no room
    for a token of text, or where the chat template refuses it. Near the end of the context generated text is limited
    to the tokens that are left.

    Args:
        arguments: of `HFLM`.
        reserved_tokens: of the context that an adapter takes before the prompt.
    """
    from jinja2 import TemplateError
    from lm_eval.models.huggingface import HFLM

    parent: Any = HFLM  # its decorators hide its members from type checkers

    class _Bounded(parent):
        def __init__(self) -> None:
            super().__init__(**arguments)
            self.left_out: dict[str, str] = {}

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            try:
                return super().apply_chat_template(chat_history, add_generation_prompt)
            except TemplateError:
                return REFUSED_TEXT

        def loglikelihood(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            for request in requests:
                context, continuation = request.args
                self._judge(request, context, self._pair_length(context, continuation) - 1)
            asked = self._asked(requests)
            found = iter(super().loglikelihood(asked, disable_tqdm=disable_tqdm) if asked else ())
            return [next(found) if self._takes(request) else (UNASKED_LOGPROB, False) for request in requests]

        def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
            limited = []
            for request in requests:
                context, settings = request.args
                length = int(self.tok_batch_encode([context])[0].shape[1])
                self._judge(request, context, length + 1)
                room = self._limit() - length
                tokens = int(settings.get("max_gen_toks") or self.max_gen_toks)
                fitting = settings if tokens <= room else {**settings, "max_gen_toks": room}
                limited.append(replace(request, arguments=(context, fitting)))
            asked = self._asked(limited)
            found = iter(super().generate_until(asked, disable_tqdm=disable_tqdm) if asked else ())
            return [next(found) if self._takes(request) else "" for request in requests]

        def _limit(self) -> int:
            return self.max_length - reserved_tokens

        def _pair_length(self, context: str, continuation: str) -> int:
            if not context:
                return 1 + len(self.tok_encode(continuation, add_special_tokens=False))
            return sum(map(len, self._encode_pair(context, continuation)))

        def _judge(self, request: "Instance", context: str, tokens: int) -> None:
            if REFUSED_TEXT in context:
                self.left_out[request.doc["item_id"]] = TEMPLATE_REFUSED
            elif tokens > self._limit():
                self.left_out.setdefault(request.doc["item_id"], CONTEXT_EXCEEDED)

        def _takes(self, request: "Instance") -> bool:
            return request.doc["item_id"] not in self.left_out

        def _asked(self, requests: "Sequence[Instance]") -> "list[Instance]":
            return [request for request in requests if self._takes(request)]

    return _Bounded()
