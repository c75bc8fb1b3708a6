"""Run a training from the first step to its outcome, with checkpoints, out-of-memory retries and early stopping."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from synth_assets.llm.costs import (
    host_peak_bytes,
    parameter_counts,
    peak_memory,
    predicted_cost,
    reset_host_peak,
    reset_peak_memory,
)
from synth_assets.schemas.tier import Tier
from synth_assets.training.callbacks import MAX_OVERFLOWS_FLOAT16, Curve
from synth_assets.training.checkpoints import read_state
from synth_assets.training.data import Example
from synth_assets.training.engine import Outcome, Trained, TrainingSetup, save_adapter
from synth_assets.training.errors import TrainingError
from synth_assets.training.loop import restore_session, training_callback
from synth_assets.training.memory import free_memory, is_out_of_memory, shrink_batch
from synth_assets.training.preconditions import batch_rows, check_trained, steps_in_epoch, trainable_weights
from synth_assets.training.session import Session, TrainingInterruptedError, graceful_stop, raise_pending_signal
from synth_assets.training.specs import OptimizationSpec
from synth_assets.training.validation import validation_scores

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import Trainer

S = TypeVar("S", bound=OptimizationSpec)


@dataclass(frozen=True)
class Rows:
    """Facts about the rows of a training.

    Args:
        lengths: tokens of each training sequence, to predict the cost.
        validation: examples on which the finished adapter is scored; empty for no scores.
        difficulty: difficulty of each training row, for the curriculum.
        notes: notes on decisions made before the training, for its log and events.
        sequences: training sequences per row.
    """

    lengths: Sequence[int]
    validation: Sequence[Example] = ()
    difficulty: Sequence[float] = ()
    notes: Sequence[str] = ()
    sequences: int = 1


def fit(make: "Callable[[S, Path], Trainer]", spec: S, setup: TrainingSetup, rows: Rows) -> Trained:
    """Train until the steps, the patience or the budget is used up.

    Resumes from the newest checkpoint of `setup`. When memory runs out, the training restarts from that checkpoint, or
    from the initial weights, with a smaller batch and more accumulation, so that each step sees the same rows.

    Args:
        make: builds a Trainer with `TrainerMixin` from a spec and a scratch folder, around a PeftModel whose adapter is
            called "default".
        spec: with or without a batch size.
        setup: tier, progress, checkpoints and budget.
        rows: lengths, validation examples and difficulty of the rows.

    Raises:
        TrainingError: a metric was not finite, the weights did not change, or the budget or the memory is too small.
        TrainingInterruptedError: a signal stopped the training.
    """
    batch, accumulation = batch_rows(spec, setup.tier)
    spec = replace(spec, batch_size=batch, accumulation=accumulation)
    predicted = predicted_cost(
        sum(rows.lengths) * _passes(spec, rows, setup.tier), setup.expected_tokens_per_s, setup.tier
    )
    setup.budget.check_prediction(predicted.get("seconds"))
    checkpoint = setup.checkpoints.newest(setup.progress) if setup.checkpoints else None
    if checkpoint:
        spec = _restore_batch(spec, checkpoint)
    start: dict[str, Tensor] = {}
    events = list(rows.notes)
    for note in rows.notes:
        setup.progress(f"{setup.name}: {note}")
    reset_host_peak()
    while True:
        attempt = _Attempt(spec, setup, rows, start, checkpoint, events)
        if attempt.train(make):
            return attempt.trained(predicted)
        free_memory()
        before, events = spec, attempt.session.events
        spec = shrink_batch(spec)
        sizes = f"{before.batch_size} x {before.accumulation} to {spec.batch_size} x {spec.accumulation}"
        attempt.session.report(f"out of memory: batch x accumulation reduced from {sizes}; rows per step unchanged")
        checkpoint = setup.checkpoints.newest(setup.progress) if setup.checkpoints else None
        if spec.batch_tokens and setup.checkpoints:
            setup.checkpoints.clear()  # they contain the larger batches of the interrupted epoch
            checkpoint = None
        del attempt


class _Attempt:
    """One attempt at a training, with a fixed batch size."""

    def __init__(
        self,
        spec: OptimizationSpec,
        setup: TrainingSetup,
        rows: Rows,
        start: "dict[str, Tensor]",
        checkpoint: Path | None,
        events: Sequence[str],
    ) -> None:
        """Start from `checkpoint`, or from the weights in `start`, which the first attempt fills in."""
        self.spec, self.setup, self.rows, self.start, self.checkpoint = spec, setup, rows, start, checkpoint
        overflows = MAX_OVERFLOWS_FLOAT16 if setup.tier.dtype == "float16" else 0
        curve = Curve(setup.name, setup.progress, overflows, setup.observer.logged)
        self.session = Session(spec, curve, setup.checkpoints, setup.budget, rows.difficulty)
        self.session.events.extend(events)
        self.model: Any = None
        self.tokenizer: Any = None

    def train(self, make: "Callable[[Any, Path], Trainer]") -> bool:
        """Train; return False if memory ran out."""
        with tempfile.TemporaryDirectory(prefix="training-") as scratch:
            try:
                with graceful_stop(self.session):
                    self._run(make(self.spec, Path(scratch)))
            except TrainingInterruptedError:
                raise_pending_signal(self.session)
                raise
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                return False
        return True

    def _run(self, trainer: "Trainer") -> None:
        from transformers import PrinterCallback

        session = self.session
        trainer.session = session  # pyright: ignore[reportAttributeAccessIssue]
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(training_callback(session))
        self.model, self.tokenizer = trainer.model, trainer.processing_class
        _keep_float32_adapters(self.model, self.setup.tier)
        _keep_four_bit_gradients_exact(self.model)
        if not self.start:
            self.start.update(trainable_weights(self.model))
        _load_weights(self.start, self.model)
        session.curve.started = time.monotonic()
        if self.checkpoint:
            restore_session(session, self.checkpoint, self.model)
            session.report(f"resuming from checkpoint {self.checkpoint.name}")
        reset_peak_memory()
        trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        self.seconds = session.curve.seconds()
        session.best.load_into(self.model)

    def trained(self, predicted: dict[str, float]) -> Trained:
        """Return the trained adapter with its outcome. Raises TrainingError if no weights changed."""
        session, curve, model = self.session, self.session.curve, self.model
        if not curve.losses():
            raise TrainingError("no step was logged")
        check_trained(model, self.start)
        batch, accumulation = batch_rows(self.spec, self.setup.tier)
        peak, kind = peak_memory(model, self.spec.batch_tokens or batch * max(self.rows.lengths))
        counts = parameter_counts(model)
        outcome = Outcome(
            curve=curve.points,
            final_loss=curve.final_loss(),
            steps=len(curve.losses()),
            tokens=curve.tokens,
            tokens_per_s=curve.tokens / (self.seconds - curve.validation_s),
            seconds=self.seconds,
            trainable_parameters=counts[0],
            total_parameters=counts[1],
            peak_memory_bytes=peak,
            peak_memory_kind=kind,
            fill_rate=curve.tokens / max(curve.slots, 1),
            host_peak_bytes=host_peak_bytes(),
            batch_size=batch,
            accumulation=accumulation,
            best_step=session.best.step if session.best.weights else 0,
            phases=[asdict(phase) for phase in session.rate.phases] if session.rate else [],
            predicted=predicted,
            validation=validation_scores((model, self.tokenizer), self.rows.validation, self.spec.scored_rows, batch),
            events=session.events,
        )
        return Trained(outcome, lambda folder: save_adapter(model, folder, self.setup.base))


def _passes(spec: OptimizationSpec, rows: Rows, tier: Tier) -> float:
    """Return the number of passes over the rows; with a token budget, an estimate from full batches."""
    if not spec.max_steps:
        return spec.epochs
    if spec.batch_tokens:
        return spec.max_steps * batch_rows(spec, tier)[1] * spec.batch_tokens / sum(rows.lengths)
    return spec.max_steps / steps_in_epoch(len(rows.lengths) // rows.sequences, spec, tier)


def _restore_batch(spec: S, checkpoint: Path) -> S:
    """Return the spec with the batch size, accumulation and token budget of a checkpoint."""
    state = read_state(checkpoint)
    return replace(spec, **{name: state[name] for name in ("batch_size", "accumulation", "batch_tokens")})


def _load_weights(weights: "dict[str, Tensor]", model: "PeftModel") -> None:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def _keep_four_bit_gradients_exact(model: "PeftModel") -> None:
    """Stop bitsandbytes 0.50 from repacking 4-bit weights in validation, which makes later CPU gradients wrong."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def _keep_float32_adapters(model: "PeftModel", tier: Tier) -> None:
    """Undo TRL's cast of adapters on quantised bases to bfloat16 in float16 training, whose scaler needs float32."""
    if tier.dtype != "float16":
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
