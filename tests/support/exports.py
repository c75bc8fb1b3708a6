"""Good exports of the champion, by hand, and mutations of them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from synth_assets.embedded import model_path
from synth_assets.embedded.chat_format import BEGIN_OF_TEXT, END_OF_TURN, header
from synth_assets.stages.export.gguf_quality import GreedyComparison, GreedyDifference, Perplexity
from synth_assets.stages.export.hub import CARD, Pushed, Release
from synth_assets.stages.export.merge import LogitDifference
from synth_assets.stages.export.ollama import CONVERSATIONS, MODELFILE, ChatPieces, modelfile
from synth_assets.stages.export.ollama_export import OllamaResult
from synth_assets.stages.export.records import (
    STORE,
    ExportIdentity,
    GgufModel,
    HubRelease,
    MergedModel,
    OllamaModel,
    place,
)
from synth_assets.stages.export.write import GgufFile, GgufResult
from synth_assets.storage.manifests import MANIFEST, file_sha256, read_manifest, write_manifest
from tests.support.mutations import Mutation
from tests.support.world import COMMIT, Data, World

MERGED, GGUF, OLLAMA, HUB = EXPORTS = ("merged_model", "gguf_model", "ollama_model", "hub_release")
KIND = {MERGED: "merged", GGUF: "gguf", OLLAMA: "ollama", HUB: "hub"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json")
EMBEDDED_PIECES = ChatPieces(
    start=BEGIN_OF_TEXT,
    without_system="",
    before_system=header("system"),
    after_system=END_OF_TURN,
    before_user=header("user"),
    before_answer=END_OF_TURN + header("assistant"),
    after_answer=END_OF_TURN,
)
LOGITS = LogitDifference(largest=0.01, scale=10.0, tolerance=0.01, same_argmax=1.0)
GOOD = Perplexity(value=3.0, ratio=1.0, largest_nats=0.001, rows=2, tokens=20)
LOST = replace(GOOD, value=6.0, ratio=2.0)
F16 = GgufFile("f16", "model-f16.gguf", 4, GOOD)
UNEXPLAINED = [GreedyDifference(prompt, 0, "a", "b", 2.0) for prompt in range(2)]


def exports(home: Path) -> Data:
    """The four exports of version 1, with their files."""
    folders = {name: home / STORE / "a" / kind for name, kind in KIND.items()}
    text = modelfile(EMBEDDED_PIECES, F16.name, END_OF_TURN, adds_bos=False)
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        if name in (MERGED, HUB):
            (folder / "model.safetensors").write_bytes(b"weights")
        if name in (GGUF, OLLAMA):
            (folder / F16.name).write_bytes(b"GGUF")
    for file in TOKENIZER_FILES:
        shutil.copyfile(model_path("base") / file, folders[MERGED] / file)
    (folders[OLLAMA] / MODELFILE).write_text(text, "utf-8")
    (folders[HUB] / CARD).write_text("---\nlicense: mit\n---\n", "utf-8")
    for folder in folders.values():
        write_manifest(folder, {})
    common = {"version": "1", "adapter": "a", "base": "owner/base", "base_revision": COMMIT, "dtype": "float16"}
    fields = {name: {**common, **place(home, folder)} for name, folder in folders.items()}
    greedy = GreedyComparison(50, 64, [GreedyDifference(3, 7, "a", "b", 0.01)])
    pushed = Pushed("owner/name", COMMIT, f"https://hub.example/owner/name/commit/{COMMIT}", files=3)
    return {
        MERGED: MergedModel(**fields[MERGED], logits=LOGITS),
        GGUF: GgufModel(**fields[GGUF], result=GgufResult([F16], greedy, "smollm", adds_bos=False)),
        OLLAMA: OllamaModel(**fields[OLLAMA], result=OllamaResult(F16, text, CONVERSATIONS, greedy)),
        HUB: HubRelease(**fields[HUB], release=Release("mit", LOGITS), pushed=pushed),
    }


def changed(asset: str, change: Callable[[ExportIdentity], ExportIdentity]) -> Mutation:
    """Replace the record of an export."""

    def mutate(world: World) -> None:
        world.data[asset] = change(world.data[asset])

    return mutate


def torn(asset: str) -> Mutation:
    """Add a byte to the weights of an export."""

    def mutate(world: World) -> None:
        folder = world.home / world.data[asset].path
        path = next(folder.glob("model*"))
        path.write_bytes(path.read_bytes() + b"!")

    return mutate


def other_template(world: World) -> None:
    """Write a Modelfile without the header of the answer, and complete the folder again."""
    record = world.data[OLLAMA]
    path = world.home / record.path / MODELFILE
    path.write_text(path.read_text("utf-8").replace(header("assistant"), ""), "utf-8")
    read = json.loads((path.parent / MANIFEST).read_text("utf-8"))["facts"]
    write_manifest(path.parent, read)
    world.data[OLLAMA] = replace(record, manifest_sha256=file_sha256(path.parent / MANIFEST))
    read_manifest(path.parent)


def result_of(record: GgufModel, **values: object) -> GgufModel:
    return replace(record, result=replace(record.result, **values))


EXPORT_MUTATIONS: dict[tuple[str, str], Mutation] = {
    **{(asset, f"{asset}_is_complete"): torn(asset) for asset in EXPORTS},
    (MERGED, "merged_logits_equal_adapter_on_base"): changed(
        MERGED, lambda record: replace(record, logits=replace(LOGITS, largest=0.2))
    ),
    (GGUF, "gguf_text_equals_transformers"): changed(
        GGUF, lambda record: result_of(record, greedy=GreedyComparison(50, 64, UNEXPLAINED))
    ),
    (GGUF, "quantisations_kept_quality"): changed(
        GGUF, lambda record: result_of(record, files=[F16, replace(F16, quantisation="q4_k_m", perplexity=LOST)])
    ),
    (OLLAMA, "modelfile_holds_the_chat_template"): other_template,
    (OLLAMA, "ollama_quantisation_kept_quality"): changed(
        OLLAMA, lambda record: replace(record, result=replace(record.result, file=replace(F16, perplexity=None)))
    ),
    (HUB, "hub_release_was_fetched_back"): changed(
        HUB, lambda record: replace(record, pushed=replace(record.pushed, files=2))
    ),
}
OTHER_EXPORT_MUTATIONS: list[tuple[str, str, Mutation]] = [
    *((asset, f"{asset}_is_complete", changed(asset, lambda record: replace(record, manifest_sha256="0" * 64)))
      for asset in EXPORTS),
    (HUB, "hub_release_is_complete", changed(
        HUB, lambda record: replace(record, release=Release("apache-2.0", LOGITS))
    )),
    (GGUF, "quantisations_kept_quality", changed(
        GGUF, lambda record: result_of(record, files=[replace(F16, perplexity=None)])
    )),
]  # fmt: skip
