"""lm-eval's model class, which cuts what is too long from the left without a word, made to leave such items out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from synth_assets.schemas.tables import CONTEXT_EXCEEDED, TEMPLATE_REFUSED

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
            self._rated: list[Instance] = []

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            try:
                return super().apply_chat_template(chat_history, add_generation_prompt)
            except TemplateError:
                return REFUSED_TEXT

        def loglikelihood(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            self._rated = requests
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

        def _loglikelihood_tokens(self, requests: list[Any], **settings: Any) -> list[tuple[float, bool]]:  # noqa: ANN401
            """Rate the encoded requests of `loglikelihood`, in its order; the last token of a choice is not read."""
            for request, (_, context, continuation) in zip(self._rated, requests, strict=True):
                self._judge(request, len(context) + len(continuation) - 1)
            takes = [self._takes(request) for request in self._rated]
            asked = [request for request, taken in zip(requests, takes, strict=True) if taken]
            rated = iter(super()._loglikelihood_tokens(asked, **settings) if asked else ())
            return [next(rated) if taken else (UNASKED_LOGPROB, False) for taken in takes]

        def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
            limited = []
            for request in requests:
                context, settings = cast("tuple[str, dict[str, Any]]", request.args)
                length = int(self.tok_batch_encode([context])[0].shape[1])
                self._judge(request, length + 1)
                room = self._limit() - length
                tokens = int(settings.get("max_gen_toks") or self.max_gen_toks)
                fitting = settings if tokens <= room else {**settings, "max_gen_toks": room}
                limited.append(replace(request, arguments=(context, fitting)))
            asked = [request for request in limited if self._takes(request)]
            texts = iter(super().generate_until(asked, disable_tqdm=disable_tqdm) if asked else ())
            return [next(texts) if self._takes(request) else "" for request in requests]

        def _limit(self) -> int:
            return self.max_length - reserved_tokens

        def _judge(self, request: "Instance", tokens: int) -> None:
            if REFUSED_TEXT in request.args[0]:
                self.left_out[request.doc["item_id"]] = TEMPLATE_REFUSED
            elif tokens > self._limit():
                self.left_out.setdefault(request.doc["item_id"], CONTEXT_EXCEEDED)

        def _takes(self, request: "Instance") -> bool:
            return request.doc["item_id"] not in self.left_out

    return _Bounded()
