import json
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.embedded import model_path
from synth_assets.llm import model_files
from synth_assets.llm.model_files import (
    ModelFilesError,
    check_files,
    local_folder,
    resolve,
    split_repository,
    weights_folder,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "org/good": ["config.json", "model.safetensors"],
    "org/gated": ["config.json", "model.safetensors"],
    "org/pickled": ["config.json", "pytorch_model.bin"],
    "org/code": ["config.json", "model.safetensors", "modeling_own.py"],
    "org/broken": ["config.json", "model.safetensors"],
}
WEIGHTS = struct.pack("<Q", 2) + b"{}"  # safetensors without a tensor
ASK = """
import json, sys
from synth_assets.llm.model_files import ModelFilesError, resolve, weights_folder
answers = {}
for location in sys.argv[1:]:
    try:
        if location.startswith("weights of "):
            found = str(weights_folder(location.removeprefix("weights of "), "COMMIT"))
        else:
            found = resolve(location).revision
        answers[location] = found
    except ModelFilesError as error:
        answers[location] = str(error)
print(json.dumps(answers))
""".replace("COMMIT", COMMIT)


class Hub(BaseHTTPRequestHandler):
    """Fake hub with the routes that resolving a model needs; most repositories fail in some way."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name == "org/busy":
            self.reply(500, b"")
        elif name == "org/token":
            self.reply(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif name not in FILES:
            self.reply(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif "nowhere" in parts:
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif parts[0] == "api":
            files = [
                {"rfilename": file, "path": file, "type": "file", "size": 9, "oid": COMMIT} for file in FILES[name]
            ]
            whole = files if "tree" in parts else {"id": name, "sha": COMMIT, "siblings": files}
            self.reply(200, json.dumps(whole).encode())
        elif name == "org/gated":
            self.reply(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            self.file(name, parts[-1])

    def file(self, name: str, file: str) -> None:
        config = {"model_type": "llama", "max_position_embeddings": 64}
        if name == "org/code":
            config["auto_map"] = {"AutoModel": "modeling_own.Own"}
        body = WEIGHTS if file.endswith(".safetensors") else json.dumps(config).encode()
        self.reply(200, body, {"ETag": f'"{name}{file}"', "X-Repo-Commit": COMMIT}, short=name == "org/broken")

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, short: bool = False) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if short else body)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(endpoint: str, cache: Path, *locations: str, offline: bool = False) -> dict[str, str]:
    """Resolve models in a new process, because the hub library reads its address on import."""
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
        "PATH": "",
        "PYTHONPATH": str(Path(model_files.__file__).parents[2]),
    }
    command = [sys.executable, "-c", ASK, *locations]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout)


def test_hub_errors_name_the_remedy(hub: str, tmp_path: Path) -> None:  # faults 28, 30
    actual = ask(
        hub,
        tmp_path,
        "org/good",
        "org/good@nowhere",
        "org/gated",
        "org/token",
        "org/unknown",
        "org/pickled",
        "org/code",
    )
    assert actual["org/good"] == COMMIT
    assert "no such revision" in actual["org/good@nowhere"]
    assert "accept its licence at https://huggingface.co/org/gated and set HF_TOKEN" in actual["org/gated"]
    assert "preset qwen" in actual["org/gated"]
    assert "set HF_TOKEN" in actual["org/token"]
    assert "not on the hub or is private" in actual["org/unknown"]
    assert "only pickles (pytorch_model.bin)" in actual["org/pickled"]
    assert "requires custom code" in actual["org/code"]
    assert not any("\n" in answer for answer in actual.values())


def test_cached_files_are_used_offline(hub: str, tmp_path: Path) -> None:  # fault 30
    assert ask(hub, tmp_path, "org/good") == {"org/good": COMMIT}
    nowhere = "http://127.0.0.1:9"
    again = ask(nowhere, tmp_path, "org/good", "org/gated", "weights of org/good", offline=True)
    assert again["org/good"] == COMMIT
    assert "unreachable (HF_HUB_OFFLINE is set): connect, use a local folder" in again["org/gated"]
    assert "unreachable" in again["weights of org/good"]
    assert ask(nowhere, tmp_path, "org/good") == {"org/good": COMMIT}
    assert "the hub is unreachable: connect" in ask(nowhere, tmp_path / "new", "org/good")["org/good"]


def test_weights_are_fetched_at_the_commit(hub: str, tmp_path: Path) -> None:
    folder = Path(ask(hub, tmp_path, "weights of org/good")["weights of org/good"])
    assert folder.name == COMMIT
    assert sorted(path.name for path in folder.iterdir()) == FILES["org/good"]


def test_partial_download_is_not_taken_as_complete(hub: str, tmp_path: Path) -> None:  # fault 30
    assert "run again" in ask(hub, tmp_path, "org/broken")["org/broken"]
    assert not list(tmp_path.rglob("snapshots/*/config.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_path("teacher"), tmp_path / "my-teacher"))


def test_a_folder_s_version_is_the_hash_of_its_files(folder: Path) -> None:
    before = resolve(str(folder))
    assert before.folder == folder
    assert weights_folder(str(folder), before.revision) == folder
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert resolve(str(folder)).revision != before.revision
    with pytest.raises(ModelFilesError, match="changed since it was resolved"):
        weights_folder(str(folder), before.revision)


def test_a_folder_of_pickles_is_refused(folder: Path) -> None:  # fault 28
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFilesError, match=r"only pickles \(pytorch_model.bin\)"):
        resolve(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_folder_with_code_of_its_own_is_refused(folder: Path, name: str) -> None:  # fault 28
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**config, "auto_map": {"AutoConfig": "own.Config"}}))
    with pytest.raises(ModelFilesError, match=f"custom code \\({name}: auto_map\\)"):
        resolve(str(folder))


def test_code_of_builtin_classes_is_ignored(folder: Path) -> None:  # as in Phi-3's repository
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "configuration_llama.LlamaConfig", "AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": own}))
    assert resolve(str(folder)).folder == folder
    other = {**own, "AutoModelForCausalLM": "modeling_llama.LlamaWithAnotherHead"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": other}))
    with pytest.raises(ModelFilesError, match=r"custom code \(config\.json: auto_map\)"):
        resolve(str(folder))


def test_a_folder_without_configuration_is_no_model(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelFilesError, match=r"has no config\.json"):
        resolve(str(folder))


def test_weights_may_be_missing_altogether() -> None:
    with pytest.raises(ModelFilesError, match="has no weights"):
        check_files(["config.json"], "x/y")
    check_files(["a.bin", "b.safetensors"], "x/y")


@pytest.mark.parametrize("location", ["/no/such/folder", "../up/and/away", "name", "", "a/b/c", "./a"])
def test_invalid_location_is_rejected(location: str) -> None:  # fault 29
    with pytest.raises(ModelFilesError, match="must be a local folder, a hub repository"):
        local_folder(location)


def test_an_unknown_embedded_model_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="there are teacher, base, reward"):
        local_folder("embedded:critic")


def test_a_repository_may_name_a_revision() -> None:
    assert split_repository("org/model") == ("org/model", None)
    assert split_repository("org/model@refs/pr/5") == ("org/model", "refs/pr/5")


def test_records_of_models(folder: Path) -> None:
    inference = Inference(hardware=Hardware(tier="cpu", base=str(folder)))
    teacher, base = inference.resolve("teacher"), inference.resolve("base")
    assert (teacher.location, teacher.family, teacher.context_tokens) == ("embedded:teacher", "embedded", 256)
    assert (base.location, base.family) == (str(folder), "llama")
    assert base.revision == teacher.revision  # the same files
    assert inference.generator(base).model == "my-teacher"


def test_tokens_of_plain_texts_are_counted(inference: Inference) -> None:
    count = inference.count_tokens(inference.resolve("base"))
    assert count([]) == []
    assert count(["", "7", "77", "7\n7"] * 600) == [0, 1, 2, 3] * 600
    assert count(["<|eot_id|>"])[0] > 1
