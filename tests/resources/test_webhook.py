import contextlib
import socket
import threading
import time
import traceback

import pytest

from resources.webhook import Notice, Webhook, WebhookError
from synth_assets.orchestration import outbox
from tests.support.webhook import Service


def test_a_notice_is_escaped_and_redacted() -> None:
    reason = (
        "<!channel> <http://evil.example|click> [a](http://evil.example) @here \x1b[31m\nat https://hunter2@h.example"
    )
    notice = outbox.make_notice("id", reason, {"reason": reason})
    assert notice.text == (
        "&lt;!channel&gt; &lt;http://evil.example|click&gt; [a] (http://evil.example) @\u200bhere "
        "&lt;U+001B&gt;[31m⏎at https://***@h.example"
    )
    assert "hunter2" not in str(notice.facts)
    assert "\x1b" not in str(notice.facts)


NOTICE = Notice("id", "text")


def test_a_webhook_that_is_down_or_refuses_is_an_error_that_says_so() -> None:
    with Service(503) as service, pytest.raises(WebhookError, match=r"did not accept the notice: status 503"):
        service.webhook.send(NOTICE)
    with pytest.raises(WebhookError, match="did not accept the notice"):
        service.webhook.send(NOTICE)  # the server is gone
    with Service(307) as service:
        with pytest.raises(WebhookError, match=r"redirect \(307\)"):
            service.webhook.send(NOTICE)
        assert len(service.received) == 1


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/hunter2",
        "hooks.example/services/hunter2",
        "https:/hooks.example/hunter2",
        "https://hooks.example:hunter2/",
        "https://hooks.example/hunter2\n",
        "https://[hunter2/",
        "https:///hunter2",
        "hunter2",
    ],
)
def test_an_invalid_address_is_reported_without_its_secret(address: str) -> None:
    with pytest.raises(ValueError, match="SYNTH_WEBHOOK_URL must be") as refused:
        Webhook(url=address).send(NOTICE)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def drip(listener: socket.socket, seconds: float) -> None:
    """Respond to one request with a header every 0.2 s."""
    connection, _ = listener.accept()
    connection.recv(65_536)
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(int(seconds / 0.2)):
            connection.sendall(f"X-Drip-{number}: x\r\n".encode())
            time.sleep(0.2)
    connection.close()


def test_a_slow_response_times_out_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.webhook.DEADLINE_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=drip, args=(listener, 5.0))
        server.start()
        start = time.monotonic()
        with pytest.raises(WebhookError, match="did not answer within 1 s"):
            Webhook(url=f"http://127.0.0.1:{listener.getsockname()[1]}/").send(NOTICE)
        assert 0.9 < time.monotonic() - start < 3.0
        server.join()


def test_the_body_of_a_response_is_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def flood() -> None:
            connection, _ = listener.accept()
            connection.recv(65_536)
            with contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                while True:
                    connection.sendall(b"x" * 65_536)
            connection.close()

        server = threading.Thread(target=flood)
        server.start()
        Webhook(url=f"http://127.0.0.1:{listener.getsockname()[1]}/").send(NOTICE)
        server.join(5)
        assert not server.is_alive()
