"""Releases on a stand-in of the hub, over HTTP. Each push is a process, as the hub library reads settings on import."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.hub import CARD, Release, check_repository, export_release, licence_of, release_card
from synth_assets.stages.export.merge import LogitDifference
from synth_assets.stages.export.source import ExportSource
from synth_assets.storage.manifests import read_manifest, write_manifest
from tests.support.hub_server import TOKEN, HubState, serving_hub

PROJECT = Path(__file__).parents[2]
LOGITS = LogitDifference(largest=0.01, scale=10.0, tolerance=0.01, same_argmax=1.0)
PUSH = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from synth_assets.stages.export.hub import push
try:
    print(json.dumps(asdict(push(Path(sys.argv[1]), sys.argv[2], private=True, progress=lambda line: None))))
except ValueError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def hub() -> Iterator[tuple[str, HubState]]:
    with serving_hub() as served:
        yield served


def source(folder: Path) -> ExportSource:
    return ExportSource("3", "abc", "owner/base", "r1", folder, folder, "scored 0.9")


def release(tmp_path: Path, weights: bytes = b"w" * 5_000) -> Path:
    merged = tmp_path / "merged"
    merged.mkdir(exist_ok=True)
    (merged / "model.safetensors").write_bytes(weights)
    (merged / "config.json").write_text("{}")
    (merged / "LICENSE").write_text("the licence")
    write_manifest(merged, {})
    folder = tmp_path / "release"
    request: dict[str, object] = {"weights": weights[:1].decode()}
    export_release(request, folder, source(tmp_path), "mit", lambda _: (merged, LOGITS), lambda _: None)
    return folder


def push(folder: Path, endpoint: str, token: str = TOKEN, offline: str = "0", name: str = "owner/name") -> dict:
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token,
        "HF_HOME": str(folder.parent / "cache"),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
        "PATH": "",
        "PYTHONPATH": str(PROJECT),
    }
    command = [sys.executable, "-c", PUSH, str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_release_holds_the_model_its_licence_and_a_card(tmp_path: Path) -> None:
    folder = release(tmp_path)
    read_manifest(folder)
    assert {path.name for path in folder.iterdir()} == {
        *("model.safetensors", "config.json", "LICENSE", CARD, "manifest.json"),
    }
    card = (folder / CARD).read_text()
    assert card.startswith("---\nbase_model: owner/base\n")
    assert "\nlicense: mit\n" in card
    assert "scored 0.9" in card


@pytest.mark.integration
def test_a_release_is_pushed_and_fetched_back_by_revision(hub: tuple[str, HubState], tmp_path: Path) -> None:
    endpoint, state = hub
    folder = release(tmp_path)
    pushed = push(folder, endpoint)
    commit, files = state.files("owner/name", "main")
    assert pushed == {
        "repository": "owner/name",
        "revision": commit,
        "url": f"{endpoint}/owner/name/commit/{commit}",
        "files": 5,
    }
    assert {name: files[name] for name in files if name != ".gitattributes"} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert state.private == {"owner/name": True}
    assert len(state.objects) == 1  # the weights, as an LFS object
    assert any(f"/resolve/{commit}/model.safetensors" in line for line in state.requests)
    assert list(tmp_path.glob(".fetched-*")) == []


@pytest.mark.integration
def test_files_of_an_earlier_release_do_not_mix_with_the_new_ones(hub: tuple[str, HubState], tmp_path: Path) -> None:
    endpoint, state = hub
    state.private["owner/name"] = False
    state.add("owner/name", {"model-00002-of-00002.safetensors": b"old", "notes.md": b"kept"})
    push(release(tmp_path), endpoint)
    files = state.files("owner/name", "main")[1]
    assert "model-00002-of-00002.safetensors" not in files
    assert files["notes.md"] == b"kept"


@pytest.mark.integration
def test_push_errors_name_the_remedy(hub: tuple[str, HubState], tmp_path: Path) -> None:
    endpoint, state = hub
    folder = release(tmp_path)
    assert "set HF_TOKEN to one that may" in push(folder, endpoint, "hf_reader")["error"]
    assert "set both to 0" in push(folder, endpoint, offline="1")["error"]
    state.corrupt = "model.safetensors"
    assert "is not the pushed file: push again" in push(folder, endpoint)["error"]


def test_the_licence_is_that_of_the_base_unless_given(tmp_path: Path) -> None:
    assert licence_of(tmp_path, "owner/base", "mit") == "mit"
    assert licence_of(tmp_path, "embedded:base") == "mit"
    assert licence_of(tmp_path, "Qwen/Qwen2.5-1.5B-Instruct") == "apache-2.0"
    with pytest.raises(ExportError, match=r"the licence of owner/base is 'unknown'.*--licence"):
        licence_of(tmp_path, "owner/base")
    write_manifest(tmp_path, {"licence": "cc-by-4.0", "upstream": "org/upstream"})
    assert licence_of(tmp_path, "package:other") == "cc-by-4.0"
    assert "base_model: org/upstream\n" in release_card(source(tmp_path), "mit", LOGITS)
    assert Release("mit", LOGITS).logits.passed


def test_repositories_are_owner_and_name() -> None:
    check_repository("")
    check_repository("owner/name")
    with pytest.raises(ExportError, match="repository must be owner/name, got 'name'"):
        check_repository("name")
