"""Times as the commands and pages show them."""

import datetime as dt


def moment(at: float | str) -> str:
    """Return a time as "2026-11-28 09:30 UTC", from seconds since the epoch or ISO 8601 in UTC."""
    text = at if isinstance(at, str) else dt.datetime.fromtimestamp(at, dt.UTC).isoformat()
    return f"{text[:16].replace('T', ' ')} UTC"
