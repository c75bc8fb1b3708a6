"""Checks of the stage export: the files are complete, and each format gives what the model in Transformers gives."""

from collections.abc import Sequence

import dagster as dg

from checks.grouping import checks_of
from checks.sentences import none_found, sentence
from checks.stored_folders import folder_problems
from resources.storage import SynthHome
from synth_assets.stages.export.gguf_quality import GREEDY_PROMPTS, MAX_PERPLEXITY_RATIO, MIN_SAME_TEXTS
from synth_assets.stages.export.hub import CARD
from synth_assets.stages.export.ollama import CONVERSATIONS, MODELFILE, chat_pieces, modelfile
from synth_assets.stages.export.records import ExportIdentity, GgufModel, HubRelease, MergedModel, OllamaModel
from synth_assets.stages.export.write import GgufFile

EXPORT_AGAIN = "Run the job export_champion again"
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def merged_model_is_complete(merged_model: MergedModel, home: SynthHome) -> dg.AssetCheckResult:
    """Check that the files of the merged model match their manifest, and the manifest its record."""
    return _complete(merged_model, home)


def gguf_model_is_complete(gguf_model: GgufModel, home: SynthHome) -> dg.AssetCheckResult:
    """Check that the GGUF files match their manifest, and the manifest its record."""
    return _complete(gguf_model, home)


def ollama_model_is_complete(ollama_model: OllamaModel, home: SynthHome) -> dg.AssetCheckResult:
    """Check that the Modelfile and its GGUF file match their manifest, and the manifest its record."""
    return _complete(ollama_model, home)


def hub_release_is_complete(hub_release: HubRelease, home: SynthHome) -> dg.AssetCheckResult:
    """Check that the files of the release match their manifest, and that it has a model card that names its licence."""
    card = home.root() / hub_release.path / CARD
    text = card.read_text("utf-8") if card.is_file() else ""
    has_licence = f"license: {hub_release.release.licence}\n" in text
    return _complete(hub_release, home, [] if has_licence else [f"{CARD} does not name the licence"])


def merged_logits_equal_adapter_on_base(merged_model: MergedModel) -> dg.AssetCheckResult:
    """Check that the logits of the merged model equal those of the adapter on its base within the tolerance."""
    logits = merged_model.logits
    passed = logits.passed
    return dg.AssetCheckResult(
        passed=passed,
        severity=ERROR,
        description=sentence(
            f"relative difference {logits.relative:.2e} in {merged_model.dtype}",
            f"at most {logits.tolerance:g} of the largest logit allowed",
            "Export in the other dtype, or serve the adapter on its base",
            passed=passed,
        ),
        metadata={"relative": logits.relative, "limit": logits.tolerance, "same_argmax": logits.same_argmax},
    )


def gguf_text_equals_transformers(gguf_model: GgufModel) -> dg.AssetCheckResult:
    """Check that llama.cpp writes the greedy texts of Transformers in f16, but for ties of the logits."""
    greedy = gguf_model.result.greedy
    passed = greedy.passed
    unexplained = [entry for entry in greedy.differences if not entry.explained]
    return dg.AssetCheckResult(
        passed=passed,
        severity=ERROR,
        description=sentence(
            greedy.text(),
            f"{MIN_SAME_TEXTS} of {GREEDY_PROMPTS} must be equal, or each difference a tie",
            "Do not serve the GGUF files: export with --to merged, and report the difference",
            passed=passed,
        ),
        metadata={"same": greedy.same, "prompts": greedy.prompts, "unexplained": len(unexplained)},
    )


def quantisations_kept_quality(gguf_model: GgufModel) -> dg.AssetCheckResult:
    """Check that the perplexity of each quantisation was measured, and is close to that of Transformers."""
    return _kept_quality(gguf_model.result.files)


def ollama_quantisation_kept_quality(ollama_model: OllamaModel) -> dg.AssetCheckResult:
    """Check that the GGUF file of the Ollama model is one that kept quality."""
    return _kept_quality([ollama_model.result.file])


def modelfile_holds_the_chat_template(
    ollama_model: OllamaModel, gguf_model: GgufModel, merged_model: MergedModel, home: SynthHome
) -> dg.AssetCheckResult:
    """Check that the Modelfile is the one that the merged model's chat template, file and stop tokens give."""
    from synth_assets.llm.loading import load_tokenizer

    tokenizer = load_tokenizer(home.root() / merged_model.path)
    end, name = str(tokenizer.eos_token or ""), ollama_model.result.file.name
    expected = modelfile(chat_pieces(tokenizer), name, end, adds_bos=gguf_model.result.adds_bos)
    path = home.root() / ollama_model.path / MODELFILE
    passed = path.is_file() and path.read_text("utf-8") == expected
    return dg.AssetCheckResult(
        passed=passed,
        severity=ERROR,
        description=sentence(
            f"the {MODELFILE} {'is' if passed else 'is not'} that of the chat template",
            f"its template must render {CONVERSATIONS} conversations as the model's own",
            EXPORT_AGAIN,
            passed=passed,
        ),
        metadata={"conversations": ollama_model.result.conversations},
    )


def hub_release_was_fetched_back(hub_release: HubRelease, home: SynthHome) -> dg.AssetCheckResult:
    """Check that every file of a pushed release was fetched back unchanged; a release that was not pushed passes."""
    pushed, folder = hub_release.pushed, home.root() / hub_release.path
    expected = sum(path.is_file() for path in folder.rglob("*"))
    passed = pushed is None or (bool(pushed.revision) and pushed.files == expected)
    actual = f"{pushed.files} files at {pushed.revision} of {pushed.repository}" if pushed else "not pushed"
    return dg.AssetCheckResult(
        passed=passed,
        severity=ERROR,
        description=sentence(actual, f"{expected} files expected if pushed", EXPORT_AGAIN, passed=passed),
        metadata={"pushed": pushed is not None, "files": pushed.files if pushed else 0},
    )


def _complete(record: ExportIdentity, home: SynthHome, problems: Sequence[str] = ()) -> dg.AssetCheckResult:
    found = folder_problems(home.root() / record.path, record.manifest_sha256)
    return none_found([*problems, *found], "problems with the files", EXPORT_AGAIN)


def _kept_quality(files: Sequence[GgufFile]) -> dg.AssetCheckResult:
    """Return the result of a check on files: those that lost quality, or whose quality was not measured, fail it."""
    bad = [file.text() for file in files if file.perplexity is None or file.perplexity.lost_quality]
    passed = not bad
    return dg.AssetCheckResult(
        passed=passed,
        severity=WARN,
        description=sentence(
            "; ".join(bad or [file.text() for file in files]),
            f"at most {MAX_PERPLEXITY_RATIO} of the perplexity of Transformers allowed",
            "Use a larger quantisation",
            passed=passed,
        ),
        metadata={"files": len(files), "lost_quality_or_not_measured": len(bad), "limit": MAX_PERPLEXITY_RATIO},
    )


merged_model_checks = checks_of(
    "merged_model", blocking=(merged_model_is_complete, merged_logits_equal_adapter_on_base)
)
gguf_model_checks = checks_of(
    "gguf_model",
    blocking=(gguf_model_is_complete,),
    watching=(gguf_text_equals_transformers, quantisations_kept_quality),
)
ollama_model_checks = checks_of(
    "ollama_model",
    watching=(ollama_model_is_complete, modelfile_holds_the_chat_template, ollama_quantisation_kept_quality),
)
hub_release_checks = checks_of("hub_release", watching=(hub_release_is_complete, hub_release_was_fetched_back))
