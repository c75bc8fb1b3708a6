"""Assets of the stage export: the champion as a merged model, GGUF files, an Ollama model and a release on a hub."""

import dagster as dg
import polars as pl

from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.tracking import MlflowTracking
from synth_assets.schemas.records import ChampionRecord, ModelRecord
from synth_assets.stages.export import config as configs
from synth_assets.stages.export import metadata, records
from synth_assets.stages.export.hub import export_release, licence_of, push
from synth_assets.stages.export.ollama_export import GgufParts, export_ollama
from synth_assets.stages.export.source import source_of
from synth_assets.stages.export.write import EXPORT_VERSION, export_gguf, export_merged
from synth_assets.storage.manifests import folder_hash

CODE_VERSION = str(EXPORT_VERSION)
OWNERS = ["team:serving"]


@dg.asset(group_name="export", kinds={"transformers", "peft"}, owners=OWNERS, pool=GPU_POOL, code_version=CODE_VERSION)
def merged_model(
    context: dg.AssetExecutionContext,
    config: configs.MergedModelConfig,
    champion: ChampionRecord,
    base_model: ModelRecord,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Merge the champion's LoRA adapter into its base model, and compare the logits with the adapter on its base."""
    home, number = tracking.home, records.version_to_export(config.version, champion)
    source = source_of(tracking.tracker(context), number, base_model, inference.folder(base_model), home.root())
    folder = records.export_path(home.root(), source.adapter, "merged")
    logits = export_merged(source, folder, config.dtype, context.log.info)
    place = records.place(home.root(), folder)
    record = records.MergedModel(**source.facts(), dtype=config.dtype, **place, logits=logits)
    return home.record_result(record, folder_hash(folder), metadata.merged_metadata(record))


@dg.asset(group_name="export", kinds={"gguf", "transformers"}, owners=OWNERS, pool=GPU_POOL, code_version=CODE_VERSION)
def gguf_model(
    context: dg.AssetExecutionContext,
    config: configs.GgufModelConfig,
    merged_model: records.MergedModel,
    sft_dataset: pl.DataFrame,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Convert the merged model to GGUF files, and compare greedy text and perplexity in llama.cpp with Transformers."""
    home, identity = tracking.home, merged_model.request()
    folder = records.export_path(home.root(), merged_model.adapter, "gguf")
    merged, rows = home.root() / merged_model.path, sft_dataset.filter(split="validation")
    result = export_gguf(identity, folder, config.options(), rows, lambda _work: merged, context.log.info)
    record = records.GgufModel(**identity, **records.place(home.root(), folder), result=result)
    return home.record_result(record, folder_hash(folder), metadata.gguf_metadata(record))


@dg.asset(group_name="export", kinds={"gguf", "ollama"}, owners=OWNERS, code_version=CODE_VERSION)
def ollama_model(
    context: dg.AssetExecutionContext,
    config: configs.OllamaModelConfig,
    merged_model: records.MergedModel,
    gguf_model: records.GgufModel,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Write a Modelfile with the model's own chat template, stop tokens and system prompt beside a GGUF file."""
    home = tracking.home
    parts = GgufParts(home.root() / merged_model.path, home.root() / gguf_model.path, gguf_model.result)
    folder = records.export_path(home.root(), gguf_model.adapter, "ollama")
    request = {**gguf_model.request(), "gguf": gguf_model.manifest_sha256}
    result = export_ollama(request, folder, config.quantisation, lambda _work: parts, context.log.info)
    place = records.place(home.root(), folder)
    record = records.OllamaModel(**gguf_model.request(), **place, result=result)
    return home.record_result(record, folder_hash(folder), metadata.ollama_metadata(record))


@dg.asset(group_name="export", kinds={"huggingface"}, owners=OWNERS, code_version=CODE_VERSION)
def hub_release(
    context: dg.AssetExecutionContext,
    config: configs.HubReleaseConfig,
    merged_model: records.MergedModel,
    base_model: ModelRecord,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Write the merged model with a model card and its licence; push it to a hub if a repository is configured."""
    root, tracker, logits = tracking.home.root(), tracking.tracker(context), merged_model.logits
    source = source_of(tracker, merged_model.version, base_model, inference.folder(base_model), root)
    licence = licence_of(source.base_folder, source.base, config.licence)
    folder, merged = records.export_path(root, source.adapter, "hub"), root / merged_model.path
    identity = merged_model.request()
    release = export_release(identity, folder, source, licence, lambda _work: (merged, logits), context.log.info)
    repository = config.repository
    pushed = push(folder, repository, private=config.private, progress=context.log.info) if repository else None
    record = records.HubRelease(**identity, **records.place(root, folder), release=release, pushed=pushed)
    return tracking.home.record_result(record, folder_hash(folder), metadata.hub_metadata(record))
