"""Retries of MLflow calls."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from synth_assets.text.redaction import cause_of, redact, without_secrets

T = TypeVar("T")

RETRY_AFTER_S = (0.5, 1.0, 2.0, 4.0)  # between five attempts
TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}


class TrackingError(RuntimeError):
    """MLflow is unavailable. The message states what was saved and how to continue."""


def with_retries(operation: Callable[[], T], uri: str, safe: str = "") -> T:
    """Call `operation`, retrying with back-off while MLflow is down, slow or returns 5xx.

    Args:
        operation: an idempotent call.
        uri: tracking URI, for the message.
        safe: what was saved, for the message.

    Raises:
        TrackingError: the last attempt failed.
    """
    from mlflow.exceptions import MlflowException

    for pause in (*RETRY_AFTER_S, None):
        try:
            return operation()
        except (MlflowException, OSError) as error:
            if isinstance(error, MlflowException) and error.error_code not in TRANSIENT:
                if (redacted := without_secrets(error)) is not error:
                    raise TrackingError(str(redacted)) from None
                raise
            cause, server = cause_of(error), redact(uri)
            if pause is None:
                attempts = len(RETRY_AFTER_S) + 1
                message = f"MLflow at {server} failed {attempts} times: {cause}. {safe}".strip()
                raise TrackingError(message) from without_secrets(error)
            logging.getLogger(__name__).warning("MLflow at %s: %s; retrying in %s s", server, cause, pause)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
