"""Calls to MLflow that may fail for a while."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from synth_assets.text.redaction import redact, without_secrets

T = TypeVar("T")

RETRY_AFTER_S = (0.5, 1.0, 2.0, 4.0)  # back-off between five attempts
TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}


class TrackingError(RuntimeError):
    """MLflow could not be told; the message says what is safe and how to go on."""


def with_retries(operation: Callable[[], T], uri: str, safe: str = "") -> T:
    """`operation`, again with growing pauses while MLflow is down, slow or answers 5xx.

    Args:
        operation: something that may be repeated because it looks first for what an earlier attempt left.
        uri: for the message.
        safe: what is not lost, for the message.

    Raises:
        TrackingError: it still fails; names uri, cause and what is safe.
    """
    from mlflow.exceptions import MlflowException

    for pause in (*RETRY_AFTER_S, None):
        try:
            return operation()
        except (MlflowException, OSError) as error:
            if isinstance(error, MlflowException) and error.error_code not in TRANSIENT:
                if (stand_in := without_secrets(error)) is not error:
                    raise TrackingError(str(stand_in)) from None
                raise
            cause, server = redact(str(error).strip()).splitlines()[0][:300], redact(uri)
            if pause is None:
                attempts = len(RETRY_AFTER_S) + 1
                message = f"MLflow at {server} failed {attempts} times: {cause}. {safe}".strip()
                raise TrackingError(message) from without_secrets(error)
            logging.getLogger(__name__).warning("MLflow at %s: %s; again in %s s", server, cause, pause)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
