"""Compare the three-phase learning rate schedule with cosine by validation loss, over several seeds.

`python perf/schedules.py HOME [ROWS]` trains LoRA adapters of the embedded base on ROWS training rows of `sft_dataset`
in a SYNTH_HOME that `synth run` has filled, and validates on all validation rows. All schedules use the settings of the
cpu tier. The rates of the three phases are multiples of the same learning rate, or of this rate divided by 2.5, so that
the schedules start with the same rate.
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
    """Train each schedule with each seed; print the lowest and the last validation loss."""
    home = Path(sys.argv[1])
    set_up_process(home, "cpu")
    hardware = Hardware(tier="cpu")
    inference = Inference(hardware=hardware)
    base = inference.resolve("base")
    table = pl.read_parquet(home / "tables" / "sft_dataset.parquet")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else ROWS
    train = table.filter(pl.col("split") == "train").sample(count, seed=0)
    rows = pl.concat([train, table.filter(pl.col("split") == "validation")])
    cosine = replace(hardware.spec(LoraSpec()), scored_rows=0)
    three = replace(cosine, schedule="three_phase")
    gentle = replace(three, learning_rate=cosine.learning_rate / three.phase_rates[0])
    setup = TrainingSetup("perf", base.name, base.context_tokens, hardware.limits(), lambda _: None)
    print(f"{train.height} rows to train on, {rows.height - train.height} to validate, {cosine.epochs:g} epochs")
    for name, spec in {"cosine": cosine, "three-phase": three, "three-phase, rate / 2.5": gentle}.items():
        results = []
        for seed in SEEDS:
            outcome = train_lora(inference.load_base(base), rows, replace(spec, seed=seed), setup).outcome
            losses = [point["eval_loss"] for point in outcome.curve if "eval_loss" in point]
            scale = min(point.get("rate_scale", 1.0) for point in outcome.curve)
            results.append((min(losses), losses[-1], scale))
        best, last, scale = zip(*results, strict=True)
        spread = f"{fmean(best):.4f} (sd {stdev(best):.4f})"
        print(f"{name:24} lowest {spread}, last {fmean(last):.4f}, rate scale at the end {min(scale):.2f}", flush=True)


if __name__ == "__main__":
    main()
