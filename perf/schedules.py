"""The three-phase schedule beside cosine, over seeds: validation loss of LoRA adapters of the embedded base.

`python perf/schedules.py HOME [ROWS]`: trains on ROWS rows of the training split of `sft_dataset` under a SYNTH_HOME
that `synth run` has filled, and validates on all its validation rows. Both sides take the cpu tier's settings; the
rates of three phases are multiples of the same learning rate, or of that divided by 2.5, so that the two begin alike.
"""

import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import polars as pl

from resources.deployment import set_up_process
from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.training.engine import TrainingSetup
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import LoraSpec

SEEDS = (42, 43, 44)
ROWS = 320


def main() -> None:
    """Train each schedule with each seed and print the lowest and the last validation loss."""
    home = Path(sys.argv[1])
    set_up_process(home, "cpu")
    hardware = Hardware(tier="cpu")
    inference = Inference(hardware=hardware)
    base = inference.resolve("base")
    table = pl.read_parquet(home / "tables" / "sft_dataset.parquet")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else ROWS
    train = table.filter(pl.col("split") == "train").sample(count, seed=0)
    rows = pl.concat([train, table.filter(pl.col("split") == "validation")])
    own = replace(hardware.spec(LoraSpec()), scored_rows=0)
    three = replace(own, schedule="three_phase")
    gentle = replace(three, learning_rate=own.learning_rate / three.phase_rates[0])
    setting = TrainingSetup("perf", base.name, base.context_tokens, hardware.limits(), lambda _: None)
    print(f"{train.height} rows to train on, {rows.height - train.height} to validate, {own.epochs:g} epochs")
    for name, spec in {"cosine": own, "three-phase": three, "three-phase, rate / 2.5": gentle}.items():
        found = []
        for seed in SEEDS:
            outcome = train_lora(inference.load_base(base), rows, replace(spec, seed=seed), setting).outcome
            losses = [point["eval_loss"] for point in outcome.curve if "eval_loss" in point]
            scale = min(point.get("rate_scale", 1.0) for point in outcome.curve)
            found.append((min(losses), losses[-1], scale))
        best, last, scale = zip(*found, strict=True)
        spread = f"{fmean(best):.4f} (sd {stdev(best):.4f})"
        print(f"{name:24} lowest {spread}, last {fmean(last):.4f}, rate scale at the end {min(scale):.2f}", flush=True)


if __name__ == "__main__":
    main()
