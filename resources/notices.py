"""Notices to people: a webhook, when one is set."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping

import dagster as dg

from synth_assets.text_samples import notice_text

TIMEOUT_S = 10.0


class Webhook(dg.ConfigurableResource):
    """Posts notices as JSON `{"text": ..., "facts": {...}}`, as chat services take them; without a URL none is sent."""

    url: str = ""

    def send(self, text: str, facts: Mapping[str, str]) -> bool:
        """Post one notice; returns whether there was somewhere to send it.

        Raises:
            ValueError: the URL is not http or https.
            OSError: the service could not be reached or refused; the sensor's tick shows it.
        """
        if not self.url:
            return False
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"SYNTH_WEBHOOK_URL must begin with http:// or https://, not {self.url.split(':')[0]!r}")
        shown = {notice_text(name): notice_text(fact) for name, fact in facts.items()}
        body = json.dumps({"text": notice_text(text), "facts": shown}).encode()
        request = urllib.request.Request(self.url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                return True
        except urllib.error.URLError as error:
            raise OSError(f"the webhook did not take the notice: {error}") from error
