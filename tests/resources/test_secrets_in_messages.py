"""Addresses with secrets are refused where they would be shown, and hidden in the messages of failures."""

import logging
import traceback
from pathlib import Path

import pytest

from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.llm.model_files import ModelFilesError, fetch, local_folder, split_repository
from synth_assets.registry.retry import TrackingError, with_retries

SECRET = "hunter2"  # noqa: S105 - stands for a password


@pytest.fixture
def home(own_home: Path) -> SynthHome:
    return SynthHome(folder=str(own_home))


@pytest.mark.parametrize(
    "address",
    [
        f"http://me:{SECRET}@mlflow.example",
        f"HTTP://me:{SECRET}@mlflow.example",
        f"https://{SECRET}@mlflow.example",  # a token and no colon
        f"https://:{SECRET}@mlflow.example",
        f"http://mlflow.example/?token={SECRET}",
        f"http://mlflow.example/?{SECRET}",
        f"http://mlflow.example/#{SECRET}",
        f"http://mlflow.example:{SECRET}/",
        f"postgresql://me:a/{SECRET}@db.example/mlflow",
    ],
)
@pytest.mark.parametrize("field", ["tracking_uri", "ui_url"])
def test_address_with_a_secret_raises_without_quoting_it(home: SynthHome, field: str, address: str) -> None:
    tracking = MlflowTracking(home=home, **{field: address})
    use = tracking.uri if field == "tracking_uri" else lambda: tracking.version_url("1")
    with pytest.raises(ValueError, match="MLFLOW") as refused:
        use()
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_other_addresses_are_taken_as_they_are(home: SynthHome) -> None:
    for address in (
        "http://mlflow.example:5000/prefix/",
        "HTTPS://mlflow.example",
        f"postgresql://me:{SECRET}@db.example:5432/mlflow",
        "sqlite:////var/lib/[odd]/mlflow.db",
    ):
        assert MlflowTracking(home=home, tracking_uri=address).uri() == address
    assert MlflowTracking(home=home, tracking_uri="HTTP://mlflow.example/").version_url("3").startswith("HTTP://mlflow")


def test_a_database_that_stays_down_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("synth_assets.registry.retry.RETRY_AFTER_S", (0.0,))
    uri = f"postgresql://me:{SECRET}@db.example/mlflow"

    def fail() -> None:
        raise OSError(f"cannot connect to {uri}")

    with caplog.at_level(logging.WARNING), pytest.raises(TrackingError, match=r"db\.example") as failed:
        with_retries(fail, uri)
    assert SECRET not in "".join(traceback.format_exception(failed.value)) + caplog.text


def test_an_error_that_is_not_retried_is_passed_on_without_a_secret() -> None:
    from mlflow.exceptions import MlflowException

    def refuse(message: str) -> None:
        raise MlflowException(message, error_code=3)  # INVALID_PARAMETER_VALUE

    with pytest.raises(MlflowException, match="no such run"):
        with_retries(lambda: refuse("no such run"), "sqlite://")
    with pytest.raises(TrackingError, match="no such run") as failed:
        with_retries(lambda: refuse(f"no such run at http://me:{SECRET}@db.example"), "sqlite://")
    assert SECRET not in "".join(traceback.format_exception(failed.value))


def test_a_model_that_is_an_address_is_named_without_its_secret() -> None:
    for use in (local_folder, split_repository):
        with pytest.raises(ModelFilesError, match=r"https://\*\*\*@hub\.example"):
            use(f"https://{SECRET}@hub.example/owner/name")


def test_an_address_of_the_hub_with_a_secret_stays_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> None:
        raise OSError(f"no route to https://{SECRET}@mirror.example/api/models/org/model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelFilesError, match=r"https://\*\*\*@mirror\.example") as failed:
        fetch("org/model", None, [])
    assert SECRET not in "".join(traceback.format_exception(failed.value))
