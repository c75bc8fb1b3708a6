"""Invalid model folders raise before loading, with the file and the field in the message."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.embedded import model_path
from synth_assets.llm import chat_templates
from synth_assets.llm.chat_template_probe import template_error
from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.folder_checks import check_values
from synth_assets.llm.model_files import check_files, resolve, weights_folder

ENDLESS = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a valid local model folder."""
    return Path(shutil.copytree(model_path("base"), tmp_path / "mine"))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}))


def sharded(folder: Path, name: str = "model-00001-of-00001.safetensors") -> Path:
    """Add an index that maps all tensors of a folder to one file."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": name}}))
    return index


def test_valid_folder_is_accepted_with_one_file_or_an_index(folder: Path) -> None:
    assert resolve(str(folder)).folder == folder
    sharded(folder)
    actual = resolve(str(folder))
    assert weights_folder(str(folder), actual.revision) == folder


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model-1.bin",
        "../elsewhere.safetensors",
        "/elsewhere.safetensors",
        "deeper/model.safetensors",
        "model.safetensors.bin",
        "model.bin.safetensors/",
        "",
        3,
        None,
        ["model-00001-of-00001.safetensors"],
    ],
)
def test_an_index_names_only_plain_safetensors_of_its_folder(folder: Path, name: object) -> None:
    index = sharded(folder)
    edit(index, weight_map={"model.norm.weight": name})
    with pytest.raises(ModelFilesError, match=r"weight_map\['model\.norm\.weight'\] must name a \*\.safetensors file"):
        resolve(str(folder))


def test_an_index_beside_a_single_file_is_checked_too(folder: Path) -> None:
    weight_map = {"a": "../elsewhere.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelFilesError, match="weight_map"):
        resolve(str(folder))


def test_a_shard_that_is_missing_is_named(folder: Path) -> None:
    edit(sharded(folder), weight_map={"a": "model-00002-of-00002.safetensors"})
    with pytest.raises(ModelFilesError, match=r"names model-00002-of-00002\.safetensors, which is not in the folder"):
        resolve(str(folder))


def test_every_loaded_file_is_covered_by_the_revision(folder: Path) -> None:
    sharded(folder)
    before = resolve(str(folder)).revision
    shard = folder / "model-00001-of-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert resolve(str(folder)).revision != before


def test_an_adapter_in_a_base_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelFilesError, match=r"contains an adapter \(adapter_config\.json\)"):
        resolve(str(folder))
    with pytest.raises(ModelFilesError, match=r"adapter_config\.json"):
        check_files(["model.safetensors", "adapter_config.json"], "owner/name")  # as a hub lists them


@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_links_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "other.safetensors").write_bytes(b"x")
    place = {"file": outside / "other.safetensors", "folder": outside, "nothing": folder / "gone"}[target]
    (folder / "link").symlink_to(place)
    with pytest.raises(ModelFilesError, match=r"link (links to|is a broken link)"):
        resolve(str(folder))


def test_links_within_the_folder_or_the_hub_cache_are_accepted(folder: Path, tmp_path: Path) -> None:
    (folder / "again.safetensors").symlink_to("model.safetensors")
    assert resolve(str(folder)).folder == folder
    (folder / "again.safetensors").unlink()
    blobs, snapshot = tmp_path / "models--o--n" / "blobs", tmp_path / "models--o--n" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(blobs / str(number))
    assert resolve(str(snapshot)).folder == snapshot


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_attn_implementation", "someone/kernel"),
        ("attn_implementation", "kernels-community/flash-attn3:flash_attention"),
        ("_attn_implementation_internal", "someone/kernel@main"),
        ("attn_implementation", {"text_config": "someone/kernel"}),
        ("experts_implementation", "someone/experts"),
        ("text_config", {"_attn_implementation": "someone/kernel"}),
    ],
)
def test_kernels_of_a_hub_are_refused(folder: Path, field: str, value: object) -> None:
    edit(folder / "config.json", **{field: value})
    with pytest.raises(ModelFilesError, match=rf"config\.json: {field}.* names the kernel"):
        resolve(str(folder))


@pytest.mark.parametrize("value", [None, "eager", "sdpa", "flash_attention_2"])
def test_the_library_s_own_attention_may_be_named(folder: Path, value: str | None) -> None:
    edit(folder / "config.json", _attn_implementation=value)
    assert resolve(str(folder)).folder == folder


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"transformers_weights": "adapter_model.bin"}, r"config\.json: transformers_weights"),
        ("config.json", {"quantization_config": {"quant_method": "mxfp4"}}, r"quantization_config\.quant_method"),
        (
            "config.json",
            {"text_config": {"auto_map": {"AutoConfig": "own.Own"}}},
            r"config\.json: text_config\.auto_map",
        ),
        ("generation_config.json", {"custom_generate": "someone/code"}, r"generation_config\.json: custom_generate"),
        (
            "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": ["own.Own", None]}},
            r"tokenizer_config\.json: auto_map",
        ),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.4.0.json"]}, "fast_tokenizer_files must be"),
        ("tokenizer_config.json", {"chat_template": 7}, "chat_template must be a string or a list, got int"),
    ],
)
def test_code_and_files_from_elsewhere_are_refused(
    folder: Path, file: str, values: dict[str, Any], message: str
) -> None:
    edit(folder / file, **values)
    with pytest.raises(ModelFilesError, match=message):
        resolve(str(folder))


def test_a_tokenizer_outside_the_folder_is_refused(folder: Path) -> None:
    outside = shutil.move(folder / "tokenizer.json", folder.parent / "tokenizer.json")
    edit(folder / "tokenizer_config.json", tokenizer_file=str(outside))
    with pytest.raises(
        ModelFilesError, match=r"tokenizer_config\.json: tokenizer_file must be a file name in the same folder"
    ):
        resolve(str(folder))


VALUES: list[tuple[str, object]] = [
    ("max_position_embeddings", -256),
    ("max_position_embeddings", 0),
    ("max_position_embeddings", "256"),
    ("max_position_embeddings", 256.5),
    ("max_position_embeddings", None),
    ("max_position_embeddings", True),
    ("max_position_embeddings", 10**12),
    ("n_positions", -1),
    ("num_attention_heads", 0),
    ("num_key_value_heads", 3),
    ("num_hidden_layers", -4),
    ("num_hidden_layers", [4, 0]),
    ("hidden_size", "128"),
    ("vocab_size", float("nan")),
    ("vocab_size", float("inf")),
    ("head_dim", 0),
    ("rms_norm_eps", float("nan")),
    ("rms_norm_eps", 0),
    ("rope_theta", -10_000.0),
    ("attention_dropout", 2),
    ("eos_token_id", 5_000),
    ("eos_token_id", ["<|eot_id|>"]),
    ("initializer_range", float("nan")),
]


@pytest.mark.parametrize(("field", "value"), VALUES)
def test_impossible_values_are_refused_by_field(field: str, value: object) -> None:
    config = json.loads((model_path("base") / "config.json").read_text("utf-8"))
    check_values(config, "mine")
    with pytest.raises(ModelFilesError, match=rf"^mine: config\.json: {field}.* must be .*, got ") as error:
        check_values({**config, field: value}, "mine")
    assert repr(value) in str(error.value)


def test_heads_divide_the_width() -> None:
    check_values({"n_embd": 64, "n_head": 4}, "mine")
    with pytest.raises(ModelFilesError, match=r"n_head must be a divisor of the hidden size 64, got 5"):
        check_values({"n_embd": 64, "n_head": 5}, "mine")


def test_values_of_a_nested_configuration_are_checked_too(folder: Path) -> None:
    edit(folder / "config.json", text_config={"num_attention_heads": 0})
    with pytest.raises(ModelFilesError, match=r"text_config\.num_attention_heads must be an integer above 0, got 0"):
        resolve(str(folder))


@pytest.mark.parametrize("kind", ["no-such-architecture", None, 3])
def test_an_unknown_architecture_is_refused(folder: Path, kind: object) -> None:
    edit(folder / "config.json", model_type=kind)
    with pytest.raises(ModelFilesError, match=r"config\.json: model_type must be an architecture that the installed"):
        Inference(hardware=Hardware(tier="cpu", base=str(folder))).resolve("base")


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    edit(folder / "config.json", vocab_size=512)
    with pytest.raises(
        ModelFilesError, match=r"tokenizer\.json has token ids up to \d+, but vocab_size in config\.json is 512"
    ):
        resolve(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("damage", ["torn", "empty", "list", "binary", "deep"])
def test_a_damaged_description_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    content = path.read_bytes()
    damaged = {
        "torn": content[: len(content) // 2],
        "empty": b"",
        "list": b"[1, 2]",
        "binary": b"\x80\x04\xff",
        "deep": b'{"a":' * 100_000,
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(ModelFilesError, match=rf"{name} .*copy or download the model again$"):
        resolve(str(folder))


@pytest.mark.parametrize("size", [0, 4, 100, -1, -1_000, 1])
def test_damaged_weights_are_named(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content + b"x" if size == 1 else content[:size])
    with pytest.raises(ModelFilesError, match=r"model\.safetensors is damaged or incomplete \(.*\): copy or download"):
        resolve(str(folder))


def test_weights_whose_header_is_no_header_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    for start in (b"\x02" + b"\x00" * 7 + b"[]", b"\xff" * 16, b'\x08\x00\x00\x00\x00\x00\x00\x00{"a": 1}'):
        path.write_bytes(start)
        with pytest.raises(ModelFilesError, match=r"model\.safetensors is damaged"):
            resolve(str(folder))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (ENDLESS, "rendering exceeded"),
        ("{% if messages | length > 4 %}" + ENDLESS + "{% endif %}", "rendering exceeded"),
        (
            "{% set n = namespace(t='x' * 1000) %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
            "memory",
        ),
        ("{% for m in messages %}{{ m['content'] }}", "line 1: "),
        ("{{ 'x' * 5000000 }}", "5,000,000 characters"),
    ],
)
@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_without_end_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, template: str, reason: str, place: str
) -> None:
    monkeypatch.setattr(chat_templates, "CPU_S", 1)
    (folder / "chat_template.jinja").unlink()
    if place == "chat_template.jinja":
        (folder / place).write_text(template)
    else:
        edit(folder / place, chat_template=template)
    with pytest.raises(ModelFilesError, match=rf"the chat template in {place} cannot be used: .*{reason}"):
        resolve(str(folder))


def test_templates_that_reject_some_chats_or_mark_answers_are_accepted() -> None:
    alternate = (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{% if loop.index0 > 40 %}{% break %}{% endif %}{% generation %}{{ m | tojson }}"
        "{% endgeneration %}{% endfor %}{{ strftime_now('%d') }}{{ nothing.at.all }}"
    )
    assert template_error(alternate, {"bos_token": "<s>"}) == ""


def test_templates_by_name_start_with_the_default(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "chat"}]
    edit(folder / "tokenizer_config.json", chat_template=named)
    assert chat_templates.chat_template(folder, "mine") == "chat"
