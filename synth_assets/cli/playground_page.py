"""The playground page: ask models side by side, and vote for an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from resources.storage import HOME_PAGES, PLAYGROUND
from synth_assets.cli.home_apps import answering, json_body, number_of, render, reviewer_of, stored_name, text_of
from synth_assets.cli.playground import (
    CHAMPION,
    MAX_MODELS,
    MAX_NEW_TOKENS,
    MAX_TEMPERATURE,
    AskedTurns,
    Playground,
    model_choices,
)
from synth_assets.schemas.records import BASE

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

DEFAULTS = (BASE, CHAMPION, "")


@dataclass(frozen=True)
class PlaygroundPage:
    """The handlers of the page; `open` returns the models, and is called at the first request."""

    open: Callable[[], Playground]

    def routes(self) -> "list[Route]":
        """Return the routes of the page."""
        from starlette.routing import Route

        return [
            Route(PLAYGROUND, self.show),
            Route(f"{PLAYGROUND}/answers", answering(self.answer), methods=["POST"]),
            Route(f"{PLAYGROUND}/votes", answering(self.vote), methods=["POST"]),
            Route(f"{PLAYGROUND}/unload", answering(self.unload), methods=["POST"]),
        ]

    async def show(self, request: "Request") -> "Response":
        """Return the page with the models that can be asked."""
        from starlette.concurrency import run_in_threadpool

        choices = await run_in_threadpool(lambda: model_choices(self._playground.session))
        return render(
            "playground.html.jinja",
            home=HOME_PAGES,
            address=PLAYGROUND,
            choices=choices,
            defaults=DEFAULTS[:MAX_MODELS],
            max_temperature=MAX_TEMPERATURE,
            max_new_tokens=MAX_NEW_TOKENS,
            reviewer=reviewer_of(request),
        )

    def answer(self, request: "Request") -> dict[str, Any]:
        """Return the answer of one model to a conversation."""
        body = json_body(request)
        turns = body.get("turns")
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise ValueError("turns must be a list of objects with role and content")
        texts = tuple({name: text_of(turn, name) for name in turn} for turn in turns)
        asked = AskedTurns(
            texts, float(number_of(body, "temperature")), int(number_of(body, "max_new_tokens")),
            int(number_of(body, "seed")),
        )  # fmt: skip
        answer = self._playground.ask(text_of(body, "model"), asked)
        return {
            "id": answer.id,
            "title": answer.title,
            "revision": answer.revision,
            "text": answer.completion.text,
            "finish_reason": answer.completion.finish_reason,
            "tokens": answer.completion.completion_tokens,
            "seconds": answer.seconds,
        }

    def vote(self, request: "Request") -> dict[str, Any]:
        """Store the pairs of a vote; return their row ids."""
        body = json_body(request)
        others = body.get("others")
        if not isinstance(others, list) or not all(isinstance(each, str) for each in others):
            raise ValueError("others must be a list of the ids of answers")
        return {"rows": self._playground.vote(text_of(body, "chosen"), others, stored_name(text_of(body, "by")))}

    def unload(self, _request: "Request") -> dict[str, Any]:
        """Free the memory of all models."""
        self._playground.unload()
        return {}

    @cached_property
    def _playground(self) -> Playground:
        return self.open()
