"""Extensions of TRL's training loop: learning-rate schedule, batch order, checkpoints and early stopping."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth_assets.training import checkpoints as parts
from synth_assets.training.batches import Batches, fixed_batches
from synth_assets.training.errors import TrainingError
from synth_assets.training.memory import ADVICE, free_memory, is_out_of_memory
from synth_assets.training.schedules import AdaptiveRate, warmup_steps
from synth_assets.training.session import Session, TrainingInterruptedError
from synth_assets.training.trl_private import TrainerHooks

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR
    from torch.utils.data import DataLoader
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TrainerMixin(TrainerHooks):
    """Mixin for TRL trainers. Set `session` after construction. Disables TRL's telemetry."""

    session: Session

    def create_scheduler(self: Any, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ANN401
        """Create the learning-rate scheduler, which also reduces the rate when the loss stalls."""
        from torch.optim.lr_scheduler import LambdaLR

        try:
            rate = AdaptiveRate(self.session.spec, num_training_steps)
        except ValueError as error:
            raise TrainingError(str(error)) from error
        if (warmup := warmup_steps(self.session.spec, num_training_steps)) >= num_training_steps:
            raise TrainingError(
                f"warm-up must be shorter than the training of {num_training_steps} steps, got {warmup} steps"
            )
        self.session.rate = rate
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, rate.factor)
        return self.lr_scheduler

    def get_train_dataloader(self: Any) -> "DataLoader":
        """Return a data loader with the batches of `Batches`."""
        from torch.utils.data import DataLoader

        table, session = self.train_dataset, self.session
        lengths = table["length"] if "length" in table.column_names else [len(ids) for ids in table["input_ids"]]
        size, accumulation = self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps
        resumed = session.resumed_epoch
        if session.difficulty and len(session.difficulty) != len(table):
            raise TrainingError(f"expected one difficulty per row, got {len(session.difficulty)} for {len(table)} rows")
        if not session.spec.batch_tokens:
            resumed = fixed_batches([row for batch in resumed for row in batch], size)
        session.batches = Batches(list(lengths), session.spec, size, accumulation, session.difficulty, resumed=resumed)
        loader = DataLoader(
            table,
            batch_sampler=session.batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def skips_epoch(self: Any) -> bool:
        """Return whether the checkpoint was written after the last step; if so, stop the training."""
        if self.session.ended:
            self.control.should_training_stop = True
        return self.session.ended

    def training_step(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:  # noqa: ANN401
        """Run a training step and count the positions of the batch, padding included."""
        self.session.curve.slots += inputs.get("attention_mask", inputs.get("input_ids")).numel()
        return super().training_step(model, inputs, *rest)  # pyright: ignore[reportAttributeAccessIssue]

    def evaluate(self: Any, *arguments: Any, **named: Any) -> dict[str, float]:  # noqa: ANN401
        """Validate; halve the validation batch, not the training batch, when memory runs out."""
        while True:
            batch = self.args.per_device_eval_batch_size
            try:
                return super().evaluate(*arguments, **named)  # pyright: ignore[reportAttributeAccessIssue]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if batch == 1:
                raise TrainingError(f"out of memory in validation with a batch of one row: {ADVICE}")
            free_memory()
            self.args.per_device_eval_batch_size = batch // 2
            self.session.report(f"out of memory in validation: batch reduced from {batch} to {batch // 2} rows")

    def write_checkpoint(self: Any) -> None:
        """Write adapter, optimiser, generators and session; write nothing without a checkpoint folder."""
        session: Session = self.session
        if session.checkpoints is None:
            return
        moments, groups = parts.optimizer_parts(self.optimizer)
        generators, numbers = parts.random_parts()
        scaler = getattr(self.accelerator, "scaler", None)
        weights = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        state = {
            **session.state(),
            "optimizer": groups,
            "random": numbers,
            "scheduler": {k: v for k, v in self.lr_scheduler.state_dict().items() if k != "lr_lambdas"},
            "scaler": scaler.state_dict() if scaler else None,
        }
        if float(self.state.epoch or 0.0).is_integer():
            state["epoch"] = []  # the epoch is complete; the next one draws a new order
        state["ended"] = self.control.should_training_stop
        tensors = {"weights": weights, "optimizer": moments, "random": generators}
        if session.best.weights:
            tensors["best"] = session.best.weights
        text = json.dumps(asdict(self.state), sort_keys=True)
        session.checkpoints.write(self.state.global_step, tensors, state, text)
        session.saved = time.monotonic()

    def restore_weights(self: Any, checkpoint: Path) -> None:
        """Restore the trained weights."""
        import torch

        stored = parts.read_tensors(checkpoint, "weights")
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(stored[name])

    def restore_optimizer(self: Any, checkpoint: Path) -> int:
        """Restore the optimiser and the learning rate; return the number of tokens trained on so far."""
        state = parts.read_state(checkpoint)
        moments = parts.read_tensors(checkpoint, "optimizer")
        self.optimizer.load_state_dict(parts.optimizer_state(moments, state["optimizer"]))
        self.lr_scheduler.load_state_dict(
            {**state["scheduler"], "lr_lambdas": [None] * len(self.lr_scheduler.base_lrs)}
        )
        self.session.rate.restore(state["rate"])
        return state["curve"]["tokens"]

    def restore_scaler(self: Any, checkpoint: Path) -> None:
        """Restore the gradient scaler of float16."""
        state = parts.read_state(checkpoint)["scaler"]
        if state is not None:
            self.accelerator.scaler.load_state_dict(state)

    def restore_random(self, checkpoint: Path) -> None:
        """Restore the random generators."""
        parts.restore_random(parts.read_tensors(checkpoint, "random"), parts.read_state(checkpoint)["random"])


def restore_session(session: Session, checkpoint: Path, model: Any) -> None:  # noqa: ANN401
    """Restore a session from a checkpoint; the trainer restores model, optimiser and random generators."""
    state = parts.read_state(checkpoint)
    session.curve.restore(state["curve"])
    session.best.restore(state["best"], parts.read_tensors(checkpoint, "best"), model)
    session.events = [*state["events"], *(event for event in session.events if event not in state["events"])]
    session.resumed_epoch, session.ended = state["epoch"], state["ended"]


class TrainingMonitor:
    """Callback logic: record the curve, reduce the rate, keep the best weights, request checkpoints, stop early."""

    def __init__(self, session: Session) -> None:
        """Monitor the training of `session`."""
        self.session = session

    def on_pre_optimizer_step(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Record the learning rate of the coming step."""
        self.session.applied_rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_log(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Record the step in the curve, reduce the learning rate if the loss has stalled, and check the budget."""
        logs: dict[str, Any] = kwargs.get("logs") or {}
        step = state.global_step
        self.session.curve.add(step, state.max_steps, logs, self.session.facts(step))
        if "loss" not in logs:
            return
        if self.session.rate and self.session.rate.observe(float(logs["loss"])):
            _apply_lower_rate(kwargs["optimizer"], kwargs["lr_scheduler"], self.session.rate)
            scale = f"{self.session.rate.scale:.2f}"
            self.session.report(f"step {step}: loss stalled, learning rate reduced to {scale} of the schedule")
        self.session.budget.check(step, state.max_steps, self.session.curve)

    def on_evaluate(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Keep the weights if they are the best so far; stop the training if the patience is used up."""
        best = self.session.best
        if best.update(state.global_step, kwargs["metrics"]["eval_loss"], kwargs["model"]):
            self.session.report(f"stopped at step {state.global_step} of {state.max_steps}: {best.stop_reason()}")
            control.should_training_stop = True

    def on_step_end(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Request the final validation, and a checkpoint if one is due; stop on a signal."""
        epoch_ends = float(state.epoch or 0.0).is_integer() or state.global_step >= state.max_steps
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = True
        if not epoch_ends:
            control.should_save = _checkpoint_due(self.session)
        if self.session.signal and not control.should_save and not epoch_ends:
            raise TrainingInterruptedError(f"signal {self.session.signal} at step {state.global_step}")

    def on_epoch_end(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Request a checkpoint if one is due, after the epoch's validation, which also draws random numbers."""
        training_ends = state.global_step >= state.max_steps or control.should_training_stop
        control.should_save = _checkpoint_due(self.session) and (not training_ends or bool(self.session.signal))

    def on_save(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Stop on a signal after the checkpoint is written."""
        if self.session.signal:
            raise TrainingInterruptedError(
                f"signal {self.session.signal}: checkpoint written at step {state.global_step}"
            )


def training_callback(session: Session) -> "TrainerCallback":
    """Return a Trainer callback for `TrainingMonitor`."""
    from transformers import TrainerCallback

    class MonitorCallback(TrainingMonitor, TrainerCallback):
        """`TrainingMonitor` as a Transformers callback."""

    return MonitorCallback(session)


def _apply_lower_rate(optimizer: "Optimizer", scheduler: "LambdaLR", rate: AdaptiveRate) -> None:
    """Apply the reduced rate to the next step, whose rate the scheduler set before the loss was logged."""
    for group, base in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
        group["lr"] = base * rate.factor(scheduler.last_epoch)


def _checkpoint_due(session: Session) -> bool:
    if session.checkpoints is None:
        return False
    return bool(session.signal) or time.monotonic() - session.saved >= session.checkpoints.every_s
