"""The same tracker against a real MLflow server over HTTP."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.schemas.records import Metric
from synth_assets.schemas.tables import ITEM_SCORES
from synth_assets.stats.intervals import estimate
from synth_assets.storage.manifests import content_hash
from tests.support.records import make_lora

pytestmark = [pytest.mark.integration, pytest.mark.slow]
START_S = 120


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    artifacts = ["--artifacts-destination", str(tmp_path / "artifacts"), "--serve-artifacts"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen([*command, *store, *artifacts], env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            urlopen(url, timeout=5).close()  # noqa: S310  our own loopback server
            return
        except (URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_a_version_with_its_scores_and_alias(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({"weight": np.ones(2, np.float32)}, folder / "adapter_model.safetensors")
    record = make_lora()
    tracking = MlflowTracking(home=SynthHome(folder=str(tmp_path / "home")), tracking_uri=server)
    tracker = tracking.tracker(tier="cpu")
    run_id, version = tracker.log_training(record, folder, [{"step": 1, "loss": 2.0}], {})
    assert tracker.log_training(record, folder, [], {}) == (run_id, version)

    scored = [("lora_adapter", "f1", "qa", "test", f"i{n}", f"c{n}", "strict", n % 2, "", "stop") for n in range(10)]
    items = pl.DataFrame(scored, schema=ITEM_SCORES, orient="row")
    found = estimate(items["score"].to_list(), items["cluster"].to_list())
    numbers = (found.value, found.n, found.low, found.high, found.method)
    metric = Metric("lora_adapter", "qa", "test", "strict", *numbers, 0, "h", "d", content_hash(items), "")
    scores_run = tracker.log_scores([metric], items, {"lora_adapter": version})
    assert content_hash(tracker.scored_items(scores_run)) == content_hash(items)
    with pytest.raises(ValueError, match="n 11"):
        tracker.log_scores([replace(metric, n=11)], items, {})

    tracker.set_alias("champion", version, {"decision": "promoted"})
    assert (tracker.alias("champion"), tracker.version_tags(version)["decision"]) == (version, "promoted")
    tracker.remove_alias("champion")
    assert tracker.alias("champion") is None
    assert tracking.run_url(run_id).startswith(f"{server}/#/experiments/")
