"""Metadata of the materialisations of the stage export."""

from typing import Any

import dagster as dg

from synth_assets.stages.export.records import ExportIdentity, GgufModel, HubRelease, MergedModel, OllamaModel
from synth_assets.stages.export.write import GgufFile


def merged_metadata(record: MergedModel) -> dict[str, Any]:
    """Return the metadata of a merged model: how its logits differ."""
    logits = record.logits
    return {
        **_identity(record),
        "logits": logits.text(),
        "relative_logit_difference": logits.relative,
        "tolerance": logits.tolerance,
        "same_argmax": logits.same_argmax,
    }


def gguf_metadata(record: GgufModel) -> dict[str, Any]:
    """Return the metadata of GGUF files: greedy text, and size and perplexity of each; lost quality is marked."""
    result = record.result
    head = "| quantisation | MB | perplexity | of Transformers' | quality |\n|---|---:|---:|---:|---|"
    return {
        **_identity(record),
        "greedy": result.greedy.text(),
        "same_greedy_texts": result.greedy.same,
        "files": dg.MetadataValue.md("\n".join([head, *(_row(file) for file in result.files)])),
        "lost_quality": ", ".join(result.lost_quality()) or "none",
        "pre_tokenizer": result.pre_tokenizer,
        **{f"perplexity_{file.quantisation}": file.perplexity.value for file in result.files if file.perplexity},
    }


def ollama_metadata(record: OllamaModel) -> dict[str, Any]:
    """Return the metadata of an Ollama model: its file, its Modelfile and the command that creates it."""
    result = record.result
    return {
        **_identity(record),
        "file": result.file.text(),
        "modelfile": dg.MetadataValue.md(f"```\n{result.modelfile}```"),
        "conversations": result.conversations,
        "next": f"ollama create NAME -f {record.path}/Modelfile",
    }


def hub_metadata(record: HubRelease) -> dict[str, Any]:
    """Return the metadata of a release: its licence, and where it is on the hub."""
    pushed = record.pushed
    on_hub = {"revision": pushed.revision, "hub": dg.MetadataValue.url(pushed.url)} if pushed else {}
    repository = pushed.repository if pushed else "not pushed: set hub_release.repository"
    return {**_identity(record), "licence": record.release.licence, "repository": repository, **on_hub}


def _identity(record: ExportIdentity) -> dict[str, Any]:
    return {"version": record.version, "dtype": record.dtype, "path": record.path}


def _row(file: GgufFile) -> str:
    size = f"| {file.quantisation} | {file.bytes / 1e6:,.1f}"
    if file.perplexity is None:
        return f"{size} | | | not measured |"
    quality = "**lost**" if file.perplexity.lost_quality else "kept"
    return f"{size} | {file.perplexity.value:.3f} | {file.perplexity.ratio:.4f} | {quality} |"
