"""Notices to people: a webhook, when one is set."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import dagster as dg

from synth_assets.text.redaction import server_of

DEADLINE_S = 10.0  # of one notice as a whole, however slowly the server answers
VARIABLE = "SYNTH_WEBHOOK_URL"


class WebhookError(OSError):
    """The webhook did not take a notice; the message names the server and no other part of its address.

    Attributes:
        reached: whether the server answered at all.
    """

    def __init__(self, message: str, reached: bool) -> None:
        """Keep both."""
        super().__init__(message)
        self.reached = reached


@dataclass(frozen=True)
class Notice:
    """One notice.

    Args:
        id: the same for each attempt to send it, so that a receiver can drop repetitions.
        text: what a chat service shows.
        facts: the same for programs.
    """

    id: str
    text: str
    facts: Mapping[str, str] = field(default_factory=dict)


class Webhook(dg.ConfigurableResource):
    """Post notices as JSON `{"text": ..., "id": ..., "facts": {...}}`; without a URL none is sent."""

    url: str = ""

    def send(self, notice: Notice) -> None:
        """Post one notice; the header `Idempotency-Key` carries its id.

        Redirects are refused, since they would take the notice to an address that nobody set. Of the answer only the
        status is read.

        Raises:
            ValueError: the URL cannot work.
            WebhookError: the server could not be reached, refused the notice, or took longer than DEADLINE_S.
        """
        self.check()
        asyncio.run(self._post(notice))

    def check(self) -> None:
        """Raise ValueError where the URL cannot work; the message repeats no part of it but the scheme."""
        try:
            parts = urlsplit(self.url)
            works = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            works = False
        if not works or any(character.isspace() or not character.isprintable() for character in self.url):
            scheme, separator, _ = self.url.partition("://")
            got = f"scheme {scheme!r}" if separator and scheme.isalnum() else "an address without scheme"
            raise ValueError(
                f"{VARIABLE} must be an http:// or https:// address with a host, got {got}; the rest is not shown "
                "because it may hold a secret"
            )

    async def _post(self, notice: Notice) -> None:
        import httpx2

        body = {"text": notice.text, "id": notice.id, "facts": dict(notice.facts)}
        headers = {"Idempotency-Key": notice.id}
        server = server_of(self.url)
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                httpx2.AsyncClient(timeout=DEADLINE_S, follow_redirects=False) as client,
                client.stream("POST", self.url, json=body, headers=headers) as response,
            ):
                status = response.status_code
        except TimeoutError:
            raise WebhookError(f"the webhook at {server} did not answer within {DEADLINE_S:g} s", False) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            kind = type(error).__name__  # its text may quote the address
            raise WebhookError(f"the webhook at {server} did not take the notice: {kind}", False) from None
        if 300 <= status < 400:
            raise WebhookError(f"the webhook at {server} did not take the notice: it redirects ({status})", True)
        if not 200 <= status < 300:
            raise WebhookError(f"the webhook at {server} did not take the notice: status {status}", True)
