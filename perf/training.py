"""Compare the training engine with plain TRL trainers, and the asset `lora_adapter` with a bare script.

`python perf/training.py [ROWS]` trains the embedded base in float32 on one thread, with the same rows, model, precision
and batch size on both sides and without activation checkpointing. Rows join one to six tasks of the embedded world, so
that their lengths vary like those of real instructions. Times are CPU-seconds of this process, which depend less on
other load than wall time. The sides alternate; the script prints the median of ROUNDS ratios.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import dagster as dg
import polars as pl

from resources.deployment import set_up_process
from resources.hardware import TIERS, Hardware
from resources.inference import Inference
from resources.storage import AssetStorage, SynthHome
from resources.tracking import MlflowTracking
from synth_assets.embedded.answers import flawed_answer, good_answer
from synth_assets.embedded.world import tasks
from synth_assets.llm.loading import load_adapter
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import PAIRS, SFT_ROWS
from synth_assets.stages.adapters.assets import adapter_asset
from synth_assets.training.data import by_split, encode_pairs, encode_rows, pair_table, sft_table
from synth_assets.training.dpo import train_dpo
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, new_adapter
from synth_assets.training.logprobs import pair_logprobs, reference_policy
from synth_assets.training.methods import METHODS
from synth_assets.training.preconditions import batch_rows
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import DpoSpec, LoraSpec, OptimizationSpec

ROUNDS = 3
ROWS = 384
MAX_TASKS = 6  # per row
TEMPLATE_TOKENS = 32  # upper bound of the tokens that the chat template adds
BETAS = (0.1, 0.3, 1.0)
CPU = TIERS["cpu"]
SFT = LoraSpec(learning_rate=5e-3, epochs=1.0, scored_rows=0)
DPO = DpoSpec(learning_rate=5e-4, epochs=1.0, scored_rows=0)
INFERENCE = Inference(hardware=Hardware(tier="cpu"))
BASE = INFERENCE.resolve("base")
SETUP = TrainingSetup("perf", BASE.name, BASE.context_tokens, CPU, lambda _: None)


def generate_rows(count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Generate training rows of varying length as (SFT_ROWS, PAIRS)."""
    random, pool = Random(0), tasks("train")  # noqa: S311
    texts = []
    for _ in range(count):
        chosen = [random.choice(pool) for _ in range(min(random.randint(1, MAX_TASKS), random.randint(1, MAX_TASKS)))]
        instruction = " ".join(task.instruction for task in chosen)
        answers = (" ".join(answer(task, random) for task in chosen) for answer in (good_answer, flawed_answer))
        texts.append((instruction, *answers))
    counter = INFERENCE.count_tokens(BASE)
    longest = [max(counter([f"{text} {good}", f"{text} {bad}"])) for text, good, bad in texts]
    fitting = [
        text for text, tokens in zip(texts, longest, strict=True) if tokens < BASE.context_tokens - TEMPLATE_TOKENS
    ]
    columns = {"row_id": [f"r{i}" for i in range(len(fitting))], "split": ["train"] * len(fitting)}
    columns |= {name: [text[i] for text in fitting] for i, name in enumerate(("instruction", "response", "rejected"))}
    columns |= {"pair_id": columns["row_id"], "chosen": columns["response"], "history": [[] for _ in fitting]}
    return _table(SFT_ROWS, columns), _table(PAIRS, columns)


def _table(schema: pl.Schema, columns: dict[str, list[Any]]) -> pl.DataFrame:
    height = len(columns["row_id"])
    return pl.DataFrame({name: columns.get(name, [None] * height) for name in schema}, schema=schema)


def load() -> LoadedBase:
    """Load the embedded base. Each training needs a new copy, because it changes the model."""
    return INFERENCE.load_base(BASE)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU-seconds that `work` takes in this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def timed(trainer: Any) -> float:  # noqa: ANN401 - any trainer of TRL
    """Return the CPU-seconds of a plain trainer, without its printed output."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return cpu_seconds(trainer.train)


def plain_arguments(spec: OptimizationSpec, folder: Path) -> dict[str, Any]:
    """Return the arguments of a plain script: our method, batch and precision, TRL's defaults for the rest."""
    batch, accumulation = batch_rows(spec, CPU)
    return {
        "output_dir": str(folder),
        "learning_rate": spec.learning_rate,
        "num_train_epochs": spec.epochs,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "activation_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "max_length": None,
        "seed": spec.seed,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def plain_sft(rows: pl.DataFrame, folder: Path) -> float:
    """Return the CPU-seconds of TRL's SFTTrainer alone."""
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    model, tokenizer = load()
    config = LoraConfig(
        r=SFT.rank,
        lora_alpha=SFT.alpha,
        lora_dropout=SFT.dropout,
        target_modules=list(SFT.target_modules),
        task_type="CAUSAL_LM",
    )
    examples = encode_rows(rows, tokenizer, BASE.context_tokens)
    arguments = SFTConfig(**plain_arguments(SFT, folder), dataset_kwargs={"skip_prepare_dataset": True})
    trainer = SFTTrainer(
        model=new_adapter(model, config, SFT.seed),
        args=arguments,
        train_dataset=sft_table(examples).remove_columns("length"),
        processing_class=tokenizer,
    )
    return timed(trainer)


def our_sft(rows: pl.DataFrame) -> float:
    """Return the CPU-seconds of our training, from rows to the last step."""
    base = load()
    return cpu_seconds(lambda: train_lora(base, rows, SFT, SETUP))


def plain_dpo(pairs: pl.DataFrame, adapter: Path, spec: DpoSpec, folder: Path) -> float:
    """Return the CPU-seconds of TRL's DPOTrainer, which runs the reference model at each step."""
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Encoded(DPOTrainer):
        """DPOTrainer on the token ids that our side uses, so that neither side tokenizes."""

        def _prepare_dataset(self, dataset: Any, *_: object) -> Any:  # noqa: ANN401
            return dataset

    model, tokenizer = load()
    examples = encode_pairs(pairs, tokenizer, BASE.context_tokens)
    table = pair_table(examples, {example.pair_id: (0.0, 0.0) for example in examples})
    trainer = Encoded(
        model=load_adapter(model, adapter, is_trainable=True),
        args=DPOConfig(**plain_arguments(spec, folder), beta=spec.beta),
        train_dataset=table.remove_columns(["length", "ref_chosen_logps", "ref_rejected_logps"]),
        processing_class=tokenizer,
    )
    return timed(trainer)


def our_dpo(pairs: pl.DataFrame, reference: pl.DataFrame, adapter: Path, spec: DpoSpec) -> float:
    """Return the CPU-seconds of our DPO on precomputed log-probabilities."""
    base = load()
    return cpu_seconds(lambda: train_dpo(base, adapter, (pairs, reference), spec, SETUP))


def sweep(pairs: pl.DataFrame, adapter: Path, folder: Path) -> None:
    """Train three betas for two epochs on each side. Our time includes computing the reference log-probabilities."""
    base = load()
    tables: list[pl.DataFrame] = []
    ours = asset = cpu_seconds(
        lambda: tables.append(pair_logprobs(reference_policy(base, adapter, SETUP), pairs, SETUP))
    )
    plain = 0.0
    for beta in BETAS:
        spec = replace(DPO, beta=beta, epochs=2.0)
        ours += our_dpo(pairs, tables[0], adapter, spec)
        plain += plain_dpo(pairs, adapter, spec, folder)
    print(
        f"DPO, {len(BETAS)} betas x 2 epochs: plain {plain:.1f} s, ours {ours:.1f} s, "
        f"of which reference log-probabilities {asset:.1f} s"
    )
    print(f"  ratio {plain / ours:.2f} (target 1.2)", flush=True)


def asset_overhead(rows: pl.DataFrame, folder: Path) -> None:
    """Compare the asset `lora_adapter` (Dagster and MLflow) with the same training and saving in a bare script."""
    spec = replace(SFT, epochs=6.0)

    def bare() -> None:
        train_lora(load(), rows, spec, SETUP).save(folder / "bare")

    (folder / "bare").mkdir()
    materialise(rows.head(32), replace(spec, epochs=1.0), folder / "warm-up")
    script = cpu_seconds(bare)
    asset = cpu_seconds(lambda: materialise(rows, spec, folder / "asset"))
    more = f"{asset / script - 1:.1%} more (target < 5 %)"
    print(f"lora_adapter: bare script {script:.1f} s, asset with MLflow {asset:.1f} s: {more}")


def materialise(rows: pl.DataFrame, spec: LoraSpec, home_folder: Path) -> None:
    """Materialise the asset once, in this process."""

    @dg.asset
    def sft_dataset() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=rows, data_version=dg.DataVersion("rows"))

    @dg.asset
    def base_model() -> dg.MaterializeResult[ModelRecord]:
        return dg.MaterializeResult(value=BASE, data_version=dg.DataVersion(BASE.revision))

    home = SynthHome(folder=str(home_folder))
    config = {"learning_rate": spec.learning_rate, "epochs": spec.epochs, "scored_rows": 0}
    dg.materialize(
        [sft_dataset, base_model, adapter_asset(METHODS["lora"])],
        resources={
            "io_manager": AssetStorage(home=home),
            "inference": INFERENCE,
            "tracking": MlflowTracking(home=home),
        },
        run_config={
            "ops": {"lora_adapter": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


def trained_lora(rows: pl.DataFrame, folder: Path) -> Trained:
    """Train the adapter that DPO continues. Also serves as a warm-up."""
    trained = train_lora(load(), rows, SFT, SETUP)
    trained.save(folder)
    return trained


def ratios(label: str, target: float, plain: Callable[[], float], ours: Callable[[], float]) -> None:
    """Run both sides alternately; print the median ratio of plain to ours."""
    times = [(plain(), ours()) for _ in range(ROUNDS)]
    ratio = median(plain_s / our_s for plain_s, our_s in times)
    pairs = ", ".join(f"{plain_s:.1f}/{our_s:.1f}" for plain_s, our_s in times)
    print(f"{label}: plain/ours {pairs} CPU-s, ratio {ratio:.2f} (target {target})", flush=True)


def main() -> None:
    """Run the four measurements and print them."""
    set_up_process(Path(tempfile.gettempdir()), "cpu")
    rows, pairs = generate_rows(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        adapter = folder / "lora"
        adapter.mkdir()
        fill = trained_lora(rows, adapter).outcome.fill_rate
        train, _ = by_split(rows)
        print(
            f"{train.height} rows; load average {os.getloadavg()[0]:.1f}; {fill:.0%} of our batch slots hold a token",
            flush=True,
        )
        ratios("SFT, same real tokens", 1.2, lambda: plain_sft(rows, folder), lambda: our_sft(rows))
        reference = pair_logprobs(reference_policy(load(), adapter, SETUP), pairs, SETUP)
        ratios(
            "DPO, same steps", 1.25, lambda: plain_dpo(pairs, adapter, DPO, folder),
            lambda: our_dpo(pairs, reference, adapter, DPO),
        )  # fmt: skip
        sweep(pairs, adapter, folder)
        asset_overhead(rows, folder)


if __name__ == "__main__":
    main()
