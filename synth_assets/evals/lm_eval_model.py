"""lm-eval's HFLM, changed to exclude items that exceed the context instead of truncating them from the left."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from jinja2 import TemplateError

from synth_assets.schemas.tables import CONTEXT_EXCEEDED, TEMPLATE_REFUSED

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

REFUSED_TEXT = "\U0010fffd refused by the chat template"
"""Placeholder for a prompt that the chat template refuses; the private-use character keeps it out of real prompts."""
UNRATED_LOGPROB = -1.0  # finite, so that the task can compute a score; readers ignore it


class BoundedModel(Protocol):
    """An lm-eval language model; `left_out` maps the id of each item that it cannot take to the reason."""

    left_out: dict[str, str]


class _Bounded:
    """Mixin for HFLM; set up before HFLM is, whose constructor may call these methods."""

    def __init__(self, arguments: Mapping[str, Any], reserved_tokens: int) -> None:
        self.left_out: dict[str, str] = {}
        self._reserved_tokens = reserved_tokens
        self._rated: list[Instance] = []
        super().__init__(**arguments)

    def apply_chat_template(self: Any, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        try:
            return self._parent().apply_chat_template(chat_history, add_generation_prompt)
        except TemplateError:
            return REFUSED_TEXT

    def loglikelihood(self: Any, requests: "list[Instance]", disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self._rated = requests
        return self._parent().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self: Any, requests: list[Any], **settings: Any) -> list[tuple[float, bool]]:  # noqa: ANN401
        """Rate the encoded requests of `loglikelihood`, in order; the last token of a choice is not an input."""
        for request, (_, context, continuation) in zip(self._rated, requests, strict=True):
            self._check_length(request, len(context) + len(continuation) - 1)
        answerable = [self._takes(request) for request in self._rated]
        accepted = [request for request, ok in zip(requests, answerable, strict=True) if ok]
        rated = iter(self._parent()._loglikelihood_tokens(accepted, **settings) if accepted else ())
        return [next(rated) if ok else (UNRATED_LOGPROB, False) for ok in answerable]

    def generate_until(self: Any, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
        limited = []
        for request in requests:
            context, settings = cast("tuple[str, dict[str, Any]]", request.args)
            length = int(self.tok_batch_encode([context])[0].shape[1])
            self._check_length(request, length + 1)
            remaining = self._limit() - length
            tokens = int(settings.get("max_gen_toks") or self.max_gen_toks)
            limited_settings = settings if tokens <= remaining else {**settings, "max_gen_toks": remaining}
            limited.append(replace(request, arguments=(context, limited_settings)))
        accepted = [request for request in limited if self._takes(request)]
        texts = iter(self._parent().generate_until(accepted, disable_tqdm=disable_tqdm) if accepted else ())
        return [next(texts) if self._takes(request) else "" for request in requests]

    def _parent(self) -> Any:  # noqa: ANN401 - HFLM
        return super()

    def _limit(self: Any) -> int:
        return self.max_length - self._reserved_tokens

    def _check_length(self, request: "Instance", tokens: int) -> None:
        if REFUSED_TEXT in request.args[0]:
            self.left_out[request.doc["item_id"]] = TEMPLATE_REFUSED
        elif tokens > self._limit():
            self.left_out.setdefault(request.doc["item_id"], CONTEXT_EXCEEDED)

    def _takes(self, request: "Instance") -> bool:
        return request.doc["item_id"] not in self.left_out


def bounded_model(arguments: Mapping[str, Any], reserved_tokens: int) -> BoundedModel:
    """Return lm-eval's model around a loaded one; documents must have the field `item_id`.

    An item is excluded if its prompt with one of its choices exceeds the context, if its prompt leaves no room for a
    generated token, or if the chat template refuses it. Near the end of the context, generation is limited to the
    remaining tokens.

    Args:
        arguments: arguments of `HFLM`.
        reserved_tokens: context tokens that an adapter puts before the prompt.
    """
    from lm_eval.models.huggingface import HFLM

    hflm: Any = HFLM  # its decorators hide its members from type checkers

    class BoundedHFLM(_Bounded, hflm):
        """HFLM that excludes items which exceed the context."""

    return BoundedHFLM(arguments, reserved_tokens)
