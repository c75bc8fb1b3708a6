"""Small trainings of every kind, and a program that kills them: `python killed_trainings.py JOBS`.

JOBS is a JSON list of [case, folder, seconds between checkpoints, [[step, place], ...]]. Each kill is a separate
process that resumes from the checkpoints in the folder and kills itself with SIGKILL after `step` steps, at `place`:
"forward" or "second" (the first or second forward pass of the next step), or "evaluation".
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from resources.hardware import TIERS
from synth_assets.embedded import model_path
from synth_assets.llm.loading import load_causal_model, load_tokenizer, prepare_libraries
from synth_assets.schemas.tables import TURN
from synth_assets.training import sft
from synth_assets.training.checkpoints import Checkpoints
from synth_assets.training.dpo import train_dpo
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, new_adapter, save_adapter
from synth_assets.training.kto import train_kto
from synth_assets.training.loop import TrainerMixin
from synth_assets.training.orpo import train_orpo
from synth_assets.training.prompt_tuning import train_prompt
from synth_assets.training.specs import (
    DpoSpec,
    KtoSpec,
    LoraSpec,
    OptimizationSpec,
    OrpoSpec,
    PromptTuningSpec,
    RejectionSamplingSpec,
)

ROWS = 27  # 24 to train on: 6 steps of 4 rows in each epoch
COMMON: dict[str, Any] = {"batch_size": 4, "learning_rate": 5e-3, "epochs": 3.0, "scored_rows": 0}
LORA: dict[str, Any] = {**COMMON, "rank": 4, "alpha": 8, "dropout": 0.1}
HALVES: dict[str, Any] = {"batch_size": 2, "accumulation": 2}
PACKS = sft.uses_packing
BASE, PARENT = "base", "parent"  # folders next to those of the cases: a small model, and an adapter to continue
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@dataclass(frozen=True)
class Case:
    """One kind of training."""

    spec: OptimizationSpec
    packs: bool = False
    kills: tuple[tuple[int, str], ...] = ((14, "forward"),)


CASES = {
    "length": Case(LoraSpec(**{**LORA, "epochs": 6.0}), kills=((7, "forward"), (8, "forward"), (14, "forward"))),
    "accumulation": Case(LoraSpec(**LORA | HALVES, order="random"), kills=((14, "second"),)),
    "batch_tokens": Case(LoraSpec(**LORA, batch_tokens=250, order="random"), kills=((9, "forward"),)),
    "phases": Case(
        LoraSpec(
            **LORA,
            order="curriculum",
            difficulty="score",
            schedule="three_phase",
            reduce_patience=2,
            validate_every=5,
            stop_patience=9,
        ),
        kills=((10, "evaluation"), (14, "forward")),
    ),
    "packed": Case(LoraSpec(**LORA, order="packed"), packs=True),
    "prompt": Case(PromptTuningSpec(**COMMON, virtual_tokens=4), kills=((12, "evaluation"),)),
    "dpo": Case(DpoSpec(**COMMON | HALVES, sft_weight=0.5), kills=((7, "second"), (12, "evaluation"))),
    "kto": Case(KtoSpec(**{**COMMON, "epochs": 2.0}), kills=((7, "forward"), (12, "evaluation"))),
    "orpo": Case(OrpoSpec(**LORA, odds_weight=0.5), kills=((8, "forward"),)),
    "best": Case(RejectionSamplingSpec(**COMMON), kills=((14, "forward"),)),
    "max_steps": Case(LoraSpec(**LORA, max_steps=10), kills=((10, "evaluation"),)),
}


def rows() -> pl.DataFrame:
    """Return rows of varying length; every ninth is for validation."""
    numbers = range(ROWS)
    return pl.DataFrame(
        {
            "row_id": [f"r{i}" for i in numbers],
            "history": [[] for _ in numbers],
            "instruction": [f"What is {i} plus 1?" + " Please." * (i % 7) for i in numbers],
            "response": [f"It is {i + 1}." for i in numbers],
            "score": [(i * 7 % ROWS) / ROWS for i in numbers],
            "split": ["validation" if i % 9 == 0 else "train" for i in numbers],
        },
        schema_overrides={"history": pl.List(TURN)},
    )


def pairs() -> pl.DataFrame:
    """Return a preference pair for each row."""
    return rows().with_columns(
        pl.format("p{}", "row_id").alias("pair_id"),
        pl.col("response").alias("chosen"),
        pl.lit("No idea, sorry.").alias("rejected"),
        pl.lit(1.0).alias("chosen_reward"),
    )


def load(folder: Path) -> LoadedBase:
    """Load the small model of a folder."""
    prepare_libraries(TIERS["cpu"])
    return load_causal_model(folder, TIERS["cpu"]), load_tokenizer(folder)


def write_models(folder: Path) -> None:
    """Write a small model and an untrained adapter with dropout."""
    import torch
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM

    embedded = model_path("base")
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(embedded, num_key_value_heads=4, head_dim=8, **SHAPE)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / BASE)
    load_tokenizer(embedded).save_pretrained(folder / BASE)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    save_adapter(new_adapter(load(folder / BASE)[0], lora, 1), folder / PARENT, "small")


def train(name: str, folder: Path, every_s: float, progress: Callable[[str], None] = lambda _: None) -> Trained:
    """Train a case to the end, from the newest checkpoint in the folder."""
    case = CASES[name]
    checkpoints = Checkpoints(folder / "checkpoints", name, every_s)
    setup = TrainingSetup(name, "small", 256, TIERS["cpu"], progress, checkpoints)
    spec, base, parent = case.spec, load(folder.parent / BASE), folder.parent / PARENT
    # without FlashAttention, packed rows attend to each other; resuming is the same
    sft.uses_packing = (lambda *_: True) if case.packs else PACKS
    if isinstance(spec, PromptTuningSpec):
        return train_prompt(base, rows(), spec, setup)
    if isinstance(spec, DpoSpec | KtoSpec):
        reference = pairs().select("pair_id", chosen_logprob=pl.lit(-8.0), rejected_logprob=pl.lit(-9.0))
        data = pairs(), reference
        return (
            train_kto(base, parent, data, spec, setup)
            if isinstance(spec, KtoSpec)
            else train_dpo(base, parent, data, spec, setup)
        )
    if isinstance(spec, OrpoSpec):
        return train_orpo(base, pairs(), spec, setup)
    if isinstance(spec, RejectionSamplingSpec):
        return sft.train_on_best(base, parent, pairs(), spec, setup)
    assert isinstance(spec, LoraSpec)
    return sft.train_lora(base, rows(), spec, setup)


@dataclass
class Kill:
    """Kill this process after a number of steps."""

    step: int
    place: str
    passes: dict[int, int] = field(default_factory=dict)

    def arm(self) -> None:
        """Install the kill in every trainer that is created afterwards."""
        training_step, evaluate = TrainerMixin.training_step, TrainerMixin.evaluate

        def step(trainer: Any, *arguments: Any) -> Any:  # noqa: ANN401
            steps = trainer.state.global_step
            self.passes[steps] = self.passes.get(steps, 0) + 1
            if self.place == ("forward", "second")[self.passes[steps] > 1]:
                self.strike(steps)
            return training_step(trainer, *arguments)

        def evaluation(trainer: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            if self.place == "evaluation":
                self.strike(trainer.state.global_step)
            return evaluate(trainer, *arguments, **named)

        TrainerMixin.training_step, TrainerMixin.evaluate = step, evaluation

    def strike(self, steps: int) -> None:
        """Kill the process if the number of steps is reached."""
        if steps == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(jobs: list[tuple[str, str, float, list[tuple[int, str]]]]) -> None:
    """Run each kill in a fork of this process, which has already imported the libraries."""
    import torch  # noqa: F401
    from trl.trainer.dpo_trainer import DPOTrainer  # noqa: F401
    from trl.trainer.kto_trainer import KTOTrainer  # noqa: F401
    from trl.trainer.sft_trainer import SFTTrainer  # noqa: F401

    for name, folder, every_s, kills in jobs:
        for step, place in kills:
            child = os.fork()
            if child == 0:
                Kill(step, place).arm()
                train(name, Path(folder), every_s)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
                sys.exit(f"{name}: not killed at step {step}, {place}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
