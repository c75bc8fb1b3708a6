"""Run a small training and store the adapter in HOME: `python training.py HOME [EVERY_S] [LIMIT_MB]`.

EVERY_S is the time between checkpoints. LIMIT_MB limits the memory that the process may map in addition to its
libraries and model. The last line of the output is the outcome as JSON.
"""

import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path

import polars as pl

from resources.hardware import TIERS
from resources.inference import Hardware, Inference
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import SFT_ROWS
from synth_assets.storage.blocks import Progress
from synth_assets.training.engine import LoadedBase
from synth_assets.training.plan import TrainingContext, TrainingRequest
from synth_assets.training.specs import LoraSpec
from synth_assets.training.train_or_load import train_or_load_adapter
from synth_assets.training.validation import text_scores

ROWS = 96
SPEC = LoraSpec(
    rank=4, alpha=8, learning_rate=5e-3, epochs=6.0, batch_size=16, schedule="three_phase", reduce_patience=3
)


def rows() -> pl.DataFrame:
    """Return rows of varying length; every eighth is for validation."""
    numbers = range(ROWS)
    table = {
        "row_id": [f"r{i}" for i in numbers],
        "history": [[] for _ in numbers],
        "instruction": [f"What is {i} plus 1?" + " Please." * (i % 15) for i in numbers],
        "response": [f"It is {i + 1}." for i in numbers],
        "split": ["validation" if i % 8 == 0 else "train" for i in numbers],
    }
    return pl.DataFrame({name: table.get(name, [None] * ROWS) for name in SFT_ROWS}, schema=SFT_ROWS)


def map_at_most(megabytes: int) -> None:
    """Limit further allocations of this process."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + megabytes * 2**20, resource.RLIM_INFINITY))


def training_request(base: ModelRecord) -> TrainingRequest:
    return TrainingRequest("lora_adapter", SPEC, base, rows())


def training_context(home: Path, every_s: float, progress: Progress) -> TrainingContext:
    return TrainingContext(home, home / "adapters", home / "shards", TIERS["cpu"], progress, checkpoint_every_s=every_s)


def main(home: Path, every_s: float = 1e9, limit_mb: float = 0) -> None:
    inference = Inference(hardware=Hardware(tier="cpu"))
    base = inference.resolve("base")

    def load() -> LoadedBase:
        loaded = inference.load_base(base)
        if limit_mb:
            warm_up(loaded)
            map_at_most(int(limit_mb))
        return loaded

    record, stored = train_or_load_adapter(training_request(base), training_context(home, every_s, print), load)
    output = {"failure": record.failure, "outcome": asdict(stored.outcome) if stored else {}}
    sys.stdout.write(json.dumps(output) + "\n")


def warm_up(loaded: LoadedBase) -> None:
    """Load the libraries of the training, so that their memory is not counted."""
    import torch
    from trl.trainer.sft_trainer import SFTTrainer  # noqa: F401

    text_scores(["one"], ["two"])
    model, _ = loaded
    model(torch.zeros(1, 8, dtype=torch.long)).logits.sum().backward()
    model.zero_grad()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
