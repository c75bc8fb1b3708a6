"""Notifications by webhook."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import dagster as dg

from synth_assets.text.redaction import server_of

DEADLINE_S = 10.0  # total time per notice
VARIABLE = "SYNTH_WEBHOOK_URL"


class WebhookError(OSError):
    """The webhook did not accept a notice; the message names the server and no other part of its URL.

    Attributes:
        reached: whether the server answered.
    """

    def __init__(self, message: str, reached: bool) -> None:
        """Store the message and whether the server answered."""
        super().__init__(message)
        self.reached = reached


@dataclass(frozen=True)
class Notice:
    """A notification.

    Args:
        id: the same for each attempt to send it, so that the receiver can deduplicate.
        text: text for a chat service.
        facts: the same for programs.
    """

    id: str
    text: str
    facts: Mapping[str, str] = field(default_factory=dict)


class Webhook(dg.ConfigurableResource):
    """Posts notices as JSON `{"text": ..., "id": ..., "facts": {...}}`; without a URL none are sent."""

    url: str = ""

    def send(self, notice: Notice) -> None:
        """Post a notice; the header `Idempotency-Key` has its id.

        Redirects are refused, as they lead to a URL that the user did not set. Only the status of the response is read.

        Raises:
            ValueError: the URL is invalid.
            WebhookError: the server is unreachable, rejects the notice, or takes longer than DEADLINE_S.
        """
        self.check()
        asyncio.run(self._post(notice))

    def check(self) -> None:
        """Raise ValueError if the URL is invalid; the message contains only its scheme."""
        try:
            parts = urlsplit(self.url)
            is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_valid = False
        if not is_valid or any(character.isspace() or not character.isprintable() for character in self.url):
            scheme, separator, _ = self.url.partition("://")
            got = f"scheme {scheme!r}" if separator and scheme.isalnum() else "no scheme"
            raise ValueError(
                f"{VARIABLE} must be an http:// or https:// URL with a host, got {got}; the rest is not shown "
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
            kind = type(error).__name__  # its text may contain the URL
            raise WebhookError(f"the webhook at {server} did not accept the notice: {kind}", False) from None
        if 300 <= status < 400:
            raise WebhookError(f"the webhook at {server} did not accept the notice: redirect ({status})", True)
        if not 200 <= status < 300:
            raise WebhookError(f"the webhook at {server} did not accept the notice: status {status}", True)
