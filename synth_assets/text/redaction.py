"""Redaction of secrets in text before it is stored, shown, logged or sent."""

import os
import re
import traceback
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
DECODINGS = 3  # URLs nested in queries
CAUSE_CHARACTERS = 300
MIN_KNOWN = 8  # characters; shorter values of secret variables also occur in ordinary words

KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bsk-[A-Za-z0-9_-]{20,}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[0-9A-Za-z_-]{35}\b|\bhf_[A-Za-z]{34}\b|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
)
"""Keys of published formats, shared with the filter rule for personal data."""

OTHER_KEYS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\b[sr]k_(?:live|test)_\w{16,}|\bdapi[0-9a-f]{32}"
    r"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[\w-]{30,}|\bgh[pousr]_\w{20,}"
)
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
AUTHORIZATION = re.compile(
    r"(?i)\b(?P<scheme>(?:authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|(?:bearer|basic)\s+(?=[\w.~+/-]*[\d=])))"
    r"[\w.~+/-]{8,}=*"
)
ASSIGNED = re.compile(
    r"(?i)(?P<name>[\"']?\b\w*(?:passw(?:or)?d|pwd|passphrase|secret(?:[_-]?key)?|api[_-]?key|access[_-]?key"
    r"|(?:access|auth|bearer|refresh|hf|tracking)[_-]token)\b[\"']?\s*(?:=|:(?!\\?/\\?/))\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;&)\]}\"']+)"
)
"""`password=...`, `HF_TOKEN: ...`, but not `eos_token` and similar names."""

ADDRESS = re.compile(r"(?i)(?P<scheme>\b[a-z][a-z0-9+.-]{0,30}:\\?/\\?/)(?P<rest>[^\s\"'<>`]+)")
ENCODED_ADDRESS = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{0,30}%(?:25)*3a(?:%(?:25)*2f|/){2}[^\s\"'<>`&#]+")
PORT = re.compile(r":\d*$")
SECRET_NAME = re.compile(
    r"(?i)(?:^|[_.-]|x-(?:amz|goog|ms)-)(?:\w*token|\w*secret|\w*passw\w*|pass|pwd|pw|\w*key|auth\w*|sig|signature"
    r"|credentials?|session\w*|code|jwt|sas|assertion)$"
)
SECRET_VARIABLE = re.compile(r"(?:^|_)\w*(?:TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|API_KEY|ACCESS_KEY|WEBHOOK_URL)$")
RANDOM_LENGTH = 20  # shortest mix of letters and digits that counts as random


def redact(text: str) -> str:
    """Replace each secret in a text by `***`.

    Secrets are: credentials, secret query values and random fragments in URLs, including nested and percent-encoded
    ones; keys of known formats; `password=...`; `Bearer ...`; and the values of secret environment variables of this
    process.
    """
    for value in _known_values(os.environ):
        text = text.replace(value, HIDDEN)
    text = PRIVATE_KEY.sub(HIDDEN, text)
    text = ADDRESS.sub(_redacted_address, text)
    text = ENCODED_ADDRESS.sub(lambda match: _redacted_value(match[0]), text)
    for pattern in (KEY, OTHER_KEYS):
        text = pattern.sub(HIDDEN, text)
    text = AUTHORIZATION.sub(rf"\g<scheme>{HIDDEN}", text)
    return ASSIGNED.sub(rf"\g<name>{HIDDEN}", text)


def holds_secret(text: str) -> bool:
    """Return whether `redact` would replace anything."""
    return redact(text) != text


def server_of(address: str) -> str:
    """Return scheme, host and port of a URL whose path is secret as well, such as that of a webhook.

    Return a fixed text, without any part of the URL, if it cannot be parsed.
    """
    try:
        parts = urlsplit(address)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "an address that cannot be parsed"
    if not (parts.scheme and parts.hostname):
        return "an address without scheme or host"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def cause_of(error: BaseException) -> str:
    """Return the first line of an error's message without secrets, to quote in another; its type if there is none."""
    lines = redact(str(error).strip()).splitlines()
    return lines[0][:CAUSE_CHARACTERS] if lines else type(error).__name__


def without_secrets(error: BaseException) -> BaseException:
    """Return an error to use as a cause: the error itself, or a redacted one if its chain quotes a secret.

    Dagster stores the message of every cause in its event log.
    """
    if not any(holds_secret(message) for message in _chain(error)):
        return error
    return RuntimeError(redact(" <- ".join(_chain(error))))


def _chain(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield "".join(traceback.format_exception_only(link)).strip()
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _known_values(environment: Mapping[str, str]) -> list[str]:
    """Return the values of secret environment variables, longest first, as one may contain another."""
    values = {
        value for name, value in environment.items() if len(value) >= MIN_KNOWN and SECRET_VARIABLE.search(name.upper())
    }
    return sorted(values, key=len, reverse=True)


def _redacted_address(match: re.Match[str]) -> str:
    rest = match["rest"]
    authority_end = _credentials_end(rest)
    if authority_end:
        rest = f"{HIDDEN}@{rest[authority_end:]}"
    path, mark, tail = _split_once(rest, "?#")
    if not mark:
        return match["scheme"] + rest
    query, hash_mark, fragment = (tail, "", "") if mark == "#" else _split_once(tail, "#")
    if mark == "#":
        return f"{match['scheme']}{path}#{_redacted_fragment(query)}"
    end = f"{hash_mark}{_redacted_fragment(fragment)}" if hash_mark else ""
    return f"{match['scheme']}{path}?{_redacted_query(query)}{end}"


def _credentials_end(rest: str) -> int:
    """Return the index of the host after the `@` of the credentials; 0 if there are none.

    A password with an unescaped `/`, `?` or `#` is recognised by its colon, unless only digits follow.
    """
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    if "@" in authority:
        return authority.rindex("@") + 1
    if ":" in authority and not PORT.search(authority) and "@" in rest:
        return rest.rindex("@") + 1
    return 0


def _split_once(text: str, marks: str) -> tuple[str, str, str]:
    match = re.search(f"[{re.escape(marks)}]", text)
    return (text[: match.start()], match[0], text[match.end() :]) if match else (text, "", "")


def _redacted_query(query: str) -> str:
    return re.sub(r"[^&;]+", lambda part: _redacted_parameter(part[0]), query)


def _redacted_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return HIDDEN if _is_random(unquote(name)) or _decoded_secret(name) else name
    if value and SECRET_NAME.search(unquote(name)):
        return f"{name}={HIDDEN}"
    return f"{name}={_redacted_value(value)}"


def _redacted_fragment(fragment: str) -> str:
    """Redact a fragment. A route such as `#/experiments/1/runs/...` is no secret; a query after it may be."""
    path, mark, query = fragment.partition("?")
    if not path.startswith("/") and not mark:
        return _redacted_query(fragment)
    return f"{path}{mark}{_redacted_query(query)}"


def _redacted_value(value: str) -> str:
    return HIDDEN if _is_random(value) or _decoded_secret(value) else value


def _decoded_secret(value: str) -> bool:
    """Return whether a value contains a secret after percent-decoding."""
    for _ in range(DECODINGS):
        decoded = unquote(value)
        if decoded == value:
            return False
        if holds_secret(decoded):
            return True
        value = decoded
    return False


def _is_random(value: str) -> bool:
    word = value.rstrip("=")
    mixed = any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
    return len(word) >= RANDOM_LENGTH and mixed and re.fullmatch(r"[\w.+/~-]+", word) is not None
