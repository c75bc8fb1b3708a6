"""Secrets in text: find them before a text is stored, and replace them before it is shown, logged or sent."""

import os
import re
import traceback
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
DECODINGS = 3  # an address inside the query of an address inside a query
MIN_KNOWN = 8  # characters; a shorter value of a secret variable would be replaced in ordinary words

KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bsk-[A-Za-z0-9_-]{20,}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[0-9A-Za-z_-]{35}\b|\bhf_[A-Za-z]{34}\b|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
)
"""Keys with a published shape, as the filter rule for personal data counts them."""

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
"""`password=...`, `HF_TOKEN: ...`; `eos_token` and the like are no secrets here."""

ADDRESS = re.compile(r"(?i)(?P<scheme>\b[a-z][a-z0-9+.-]{0,30}:\\?/\\?/)(?P<rest>[^\s\"'<>`]+)")
ENCODED_ADDRESS = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{0,30}%(?:25)*3a(?:%(?:25)*2f|/){2}[^\s\"'<>`&#]+")
PORT = re.compile(r":\d*$")
SECRET_NAME = re.compile(
    r"(?i)(?:^|[_.-]|x-(?:amz|goog|ms)-)(?:\w*token|\w*secret|\w*passw\w*|pass|pwd|pw|\w*key|auth\w*|sig|signature"
    r"|credentials?|session\w*|code|jwt|sas|assertion)$"
)
SECRET_VARIABLE = re.compile(r"(?:^|_)\w*(?:TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|API_KEY|ACCESS_KEY|WEBHOOK_URL)$")
RANDOM_LENGTH = 20  # characters of letters and digits mixed that nobody types by hand


def redact(text: str) -> str:
    """Return a text with `***` for each secret in it.

    Replaced are credentials, secret query values and random fragments of addresses (nested and percent-encoded ones
    too), keys of known shapes, `password=...`, `Bearer ...`, and the values of this process's secret environment
    variables.
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
    """Whether `redact` would replace something."""
    return redact(text) != text


def server_of(address: str) -> str:
    """Return scheme, host and port of an address, for one whose path is a secret as well (a webhook's).

    An address that cannot be parsed gives "an address that cannot be parsed", without any part of it.
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


def without_secrets(error: BaseException) -> BaseException:
    """Return an error to raise another one from: itself, or a stand-in where its chain of causes quotes a secret.

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
    """Longest first: one may be part of another."""
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
    """Where the host begins, behind the `@` of the credentials; 0 where there are none.

    A password with an unescaped `/`, `?` or `#` is recognised by its colon, unless digits and nothing else follow.
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
    """A route of a one-page application (`#/experiments/1/runs/...`) is no secret; a query behind it may be."""
    path, mark, query = fragment.partition("?")
    if not path.startswith("/") and not mark:
        return _redacted_query(fragment)
    return f"{path}{mark}{_redacted_query(query)}"


def _redacted_value(value: str) -> str:
    return HIDDEN if _is_random(value) or _decoded_secret(value) else value


def _decoded_secret(value: str) -> bool:
    """Whether a value holds a secret once its percent-encoding is undone."""
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
