"""No secret survives `redact`, and ordinary text does."""

import pytest

from synth_assets.text.redaction import (
    CAUSE_CHARACTERS,
    HIDDEN,
    cause_of,
    holds_secret,
    redact,
    server_of,
    without_secrets,
)

PASSWORD = "hunter2"  # noqa: S105 - stands for one
TOKEN = "Zq81mKx0PfT3wB7yLd5e"  # noqa: S105 - stands for one
HF = f"hf_{'aB' * 17}"

SECRETS = [
    f"https://{TOKEN}@host.example/path",  # a user and no colon
    f"HTTP://bob:{PASSWORD}@host.example",
    f"HtTpS://bob:{PASSWORD}@HOST.example:8443/a?b=c",
    f"http://:{PASSWORD}@host.example",
    f"http://bob:{PASSWORD}@[::1]:5000/x",
    f"http://host.example/?token={PASSWORD}",
    f"http://host.example/?a=1&API_KEY={PASSWORD}&b=2",
    f"http://host.example/?apikey={PASSWORD}",
    f"http://host.example/?x-amz-signature={PASSWORD}",
    f"http://host.example/?X-Amz-Security-Token={PASSWORD}",
    f"http://host.example/blob?sv=2020&sig={PASSWORD}%3D",
    f"http://host.example/#access_token={PASSWORD}&x=1",
    f"http://host.example/#/route?access_token={PASSWORD}",
    f"http://host.example/?{TOKEN}",
    f"http://host.example/#{TOKEN}",
    f"http://host.example/?to%6ben={PASSWORD}",
    f"http://host.example/?next=https%3A%2F%2Fbob%3A{PASSWORD}%40other.example",
    f"http://host.example/?next=https%253A%252F%252Fbob%253A{PASSWORD}%2540other.example",
    f"https%3A%2F%2Fbob%3A{PASSWORD}%40other.example",
    f"https:\\/\\/bob:{PASSWORD}@host.example\\/path",
    f"postgresql://synth:{PASSWORD}@postgres:5432/mlflow",
    f"postgresql+psycopg2://synth:a/{PASSWORD}?b@postgres:5432/mlflow",
    f"redis://default:{PASSWORD}@cache.example/0",
    f"git+https://{PASSWORD}@git.example/repository.git",
    f"host=postgres user=synth password={PASSWORD} dbname=x",
    f"PGPASSWORD={PASSWORD}",
    f'{{"password": "{PASSWORD}"}}',
    f"Authorization: Bearer {TOKEN}",
    "{'authorization': 'Basic Ym9iOmh1bnRlcjI='}".replace("Ym9iOmh1bnRlcjI=", TOKEN),
    f"sent Bearer {TOKEN}",
    f"token is {HF}",
    f"(Caused by ProxyError('http://me:{PASSWORD}@proxy.example:3128'))",
    f"for url: 'https://{PASSWORD}@mirror.example/api/models/a/b'",
    f"a: [https://host.example, 'https://{PASSWORD}@host.example']",
    f"-----BEGIN RSA PRIVATE KEY-----\n{PASSWORD}\n-----END RSA PRIVATE KEY-----",
]
ORDINARY = [
    "http://127.0.0.1:5000/#/experiments/1/runs/42d4e50c9fa840798af9fcfda388922e",
    "http://127.0.0.1:3000/assets/sft_dataset?view=checks&checkDetail=no_leakage_between_splits",
    "https://huggingface.co/org/model/commits",
    "https://video.example/watch?v=dQw4w9WgXcQ",
    "sqlite:////var/lib/synth/mlflow.db",
    "postgresql://postgres:5432/mlflow",
    "write to bob@host.example, or see http://host.example:8080/a@b",
    "eos_token: <|im_end|>, pad_token=<pad>, max_tokens=64; 1,500 new tokens: fast",
    "Qwen/Qwen2.5-0.5B-Instruct@main",
    "key:sft_dataset+",
    "the secret of a good soup, basic mathematics, a bearer of pleasantries; the authorization was refused",
    "",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_replaced(text: str) -> None:
    redacted = redact(text)
    for secret in (PASSWORD, TOKEN, HF):
        assert secret not in redacted
    assert HIDDEN in redacted
    assert holds_secret(text)
    assert redact(redacted) == redacted


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


def test_other_text_stays_readable() -> None:
    assert redact(f"GET HTTPS://bob:{PASSWORD}@host.example:1/p?page=2&token=x failed") == (
        "GET HTTPS://***@host.example:1/p?page=2&token=*** failed"
    )


def test_values_of_secret_environment_variables_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("SYNTH_WEBHOOK_URL", "https://hooks.example/services/T0/B0/abc")
    assert redact("401 for me:correct horse at https://hooks.example/services/T0/B0/abc") == "401 for me:*** at ***"


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("https://hooks.example/services/T0/B0/SECRET", "https://hooks.example"),
        (f"HTTPS://bob:{PASSWORD}@hooks.example:8443/x?y#z", "https://hooks.example:8443"),
        (f"http://bob:{PASSWORD}@[::1]:9/x", "http://[::1]:9"),
        (f"hooks.example/services/{PASSWORD}", "an address without scheme or host"),
        (f"https://{PASSWORD}:port/x", "an address that cannot be parsed"),
        (f"https://[{PASSWORD}/x", "an address that cannot be parsed"),
    ],
)
def test_server_of_hides_the_path(address: str, server: str) -> None:
    assert server_of(address) == server


def test_cause_that_quotes_a_secret_is_redacted() -> None:
    harmless = ValueError("port 5000 is taken")
    assert without_secrets(harmless) is harmless
    inner = OSError(f"no route to https://{TOKEN}@host.example")
    outer = RuntimeError("the request failed")
    outer.__cause__ = inner
    stand_in = without_secrets(outer)
    assert str(stand_in) == "RuntimeError: the request failed <- OSError: no route to https://***@host.example"
    assert stand_in.__cause__ is None


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError(" port 5000 is taken\nby process 7"), "port 5000 is taken"),
        (OSError(f"no route to https://{TOKEN}@host.example"), "no route to https://***@host.example"),
        (ValueError("x" * 400), "x" * CAUSE_CHARACTERS),
        (TimeoutError(), "TimeoutError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_the_cause_is_one_line(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause
