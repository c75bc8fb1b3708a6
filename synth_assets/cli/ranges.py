"""Ranges of the numeric options."""

MAX_SAMPLES = 100_000_000
MAX_SEED = 2**32 - 1
MAX_LIMIT = 100_000
MAX_PORT = 65_535
MAX_TEMPERATURE = 2.0


def in_range(option: str, value: int, low: int, high: int | None = None) -> int:
    """Return the value of an option. Raises ValueError if it is below `low` or above `high`."""
    if value < low or (high is not None and value > high):
        expected = f"at least {low:,}" if high is None else f"{low:,} to {high:,}"
        raise ValueError(f"{option} must be {expected}, got {value:,}")
    return value


def samples_in_range(samples: int | None) -> int | None:
    """Return the value of --samples. Raises ValueError if it is out of range."""
    return None if samples is None else in_range("--samples", samples, 0, MAX_SAMPLES)
