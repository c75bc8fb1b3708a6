"""A training from its first step to its outcome, through checkpoints, shrinking batches and an end that is chosen."""

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
from synth_assets.training.callbacks import OVERFLOWS_IN_FLOAT16, Curve
from synth_assets.training.checkpoints import read_state
from synth_assets.training.data import Example
from synth_assets.training.engine import Outcome, Trained, TrainingSetup, save_adapter
from synth_assets.training.errors import TrainingError
from synth_assets.training.loop import resumed_session, watch
from synth_assets.training.memory import out_of_memory, release, smaller
from synth_assets.training.preconditions import batch_rows, check_trained, steps_in_epoch, trainable
from synth_assets.training.session import Session, TrainingInterruptedError, deliver, ending_gently
from synth_assets.training.specs import OptimizationSpec
from synth_assets.training.validation import scores_of

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import Trainer

S = TypeVar("S", bound=OptimizationSpec)


@dataclass(frozen=True)
class Rows:
    """What a training reads.

    Args:
        lengths: tokens of each sequence that is trained on, for predictions.
        validation: what the finished adapter is scored on; empty: it is not.
        difficulty: of each training row, for the curriculum.
        notes: what was decided before the training, for its log and its events.
        sequences: that each training row gives.
    """

    lengths: Sequence[int]
    validation: Sequence[Example] = ()
    difficulty: Sequence[float] = ()
    notes: Sequence[str] = ()
    sequences: int = 1


def fit(make: "Callable[[S, Path], Trainer]", spec: S, setting: TrainingSetup, rows: Rows) -> Trained:
    """Train until the steps, patience or the budget are at their end.

    A training goes on from the newest checkpoint of `setting`. Where memory runs out it starts over from there, or from
    its first weights, in smaller forward passes of the same rows for each step.

    Args:
        make: builds a `Supervised` Trainer, for a spec and a scratch folder, around a PeftModel whose adapter is called
            "default".
        spec: with or without its own batch.
        setting: the tier, and where progress and checkpoints go.
        rows: lengths, validation and difficulty of the rows.

    Raises:
        TrainingError: a number was not finite, the weights did not change, the budget or the memory does not suffice.
        TrainingInterruptedError: a signal ended it.
    """
    batch, accumulation = batch_rows(spec, setting.tier)
    spec = replace(spec, batch_size=batch, accumulation=accumulation)
    predicted = predicted_cost(
        sum(rows.lengths) * _passes(spec, rows, setting.tier), setting.known_tokens_per_s, setting.tier
    )
    setting.budget.refuse(predicted.get("seconds"))
    checkpoint = setting.checkpoints.newest(setting.progress) if setting.checkpoints else None
    if checkpoint:
        spec = _as_shrunk(spec, checkpoint)
    start: dict[str, Tensor] = {}
    events = list(rows.notes)
    for note in rows.notes:
        setting.progress(f"{setting.name}: {note}")
    reset_host_peak()
    while True:
        attempt = _Attempt(spec, setting, rows, start, checkpoint, events)
        if attempt.train(make):
            return attempt.trained(predicted)
        release()
        before, events = spec, attempt.session.events
        spec = smaller(spec)
        batches = f"{before.batch_size} x {before.accumulation} to {spec.batch_size} x {spec.accumulation}"
        attempt.session.tell(f"out of memory: forward passes x accumulation go from {batches}, the rows of a step stay")
        checkpoint = setting.checkpoints.newest(setting.progress) if setting.checkpoints else None
        if spec.batch_tokens and setting.checkpoints:
            setting.checkpoints.clear()  # their epoch's order is of the larger batches
            checkpoint = None
        del attempt


class _Attempt:
    """One try at a training, with batches of one size."""

    def __init__(
        self,
        spec: OptimizationSpec,
        setting: TrainingSetup,
        rows: Rows,
        start: "dict[str, Tensor]",
        checkpoint: Path | None,
        events: Sequence[str],
    ) -> None:
        """From `checkpoint`, or from the weights `start`, which the first attempt fills in."""
        self.spec, self.setting, self.rows, self.start, self.checkpoint = spec, setting, rows, start, checkpoint
        overflows = OVERFLOWS_IN_FLOAT16 if setting.tier.dtype == "float16" else 0
        curve = Curve(setting.name, setting.progress, overflows)
        self.session = Session(spec, curve, setting.checkpoints, setting.budget, rows.difficulty)
        self.session.events.extend(events)
        self.model: Any = None
        self.tokenizer: Any = None

    def train(self, make: "Callable[[Any, Path], Trainer]") -> bool:
        """Train; returns whether memory sufficed."""
        with tempfile.TemporaryDirectory(prefix="training-") as scratch:
            try:
                with ending_gently(self.session):
                    self._run(make(self.spec, Path(scratch)))
            except TrainingInterruptedError:
                deliver(self.session)
                raise
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                return False
        return True

    def _run(self, trainer: "Trainer") -> None:
        from transformers import PrinterCallback

        session = self.session
        trainer.session = session  # pyright: ignore[reportAttributeAccessIssue]
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watch(session))
        self.model, self.tokenizer = trainer.model, trainer.processing_class
        _keep_float32_adapters(self.model, self.setting.tier)
        _keep_four_bit_gradients_exact(self.model)
        if not self.start:
            self.start.update(trainable(self.model))
        _put(self.start, self.model)
        session.curve.started = time.monotonic()
        if self.checkpoint:
            resumed_session(session, self.checkpoint, self.model)
            session.tell(f"goes on from the checkpoint {self.checkpoint.name}")
        reset_peak_memory()
        trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        self.seconds = session.curve.seconds()
        session.best.put_into(self.model)

    def trained(self, predicted: dict[str, float]) -> Trained:
        """What came out; TrainingError where nothing was learned."""
        session, curve, model = self.session, self.session.curve, self.model
        if not curve.losses():
            raise TrainingError("no step was logged")
        check_trained(model, self.start)
        batch, accumulation = batch_rows(self.spec, self.setting.tier)
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
            validation=scores_of((model, self.tokenizer), self.rows.validation, self.spec.scored_rows, batch),
            events=session.events,
        )
        return Trained(outcome, lambda folder: save_adapter(model, folder, self.setting.base))


def _passes(spec: OptimizationSpec, rows: Rows, tier: Tier) -> float:
    """Return how often each row is read; with a token budget, as far as full batches tell."""
    if not spec.max_steps:
        return spec.epochs
    if spec.batch_tokens:
        return spec.max_steps * batch_rows(spec, tier)[1] * spec.batch_tokens / sum(rows.lengths)
    return spec.max_steps / steps_in_epoch(len(rows.lengths) // rows.sequences, spec, tier)


def _as_shrunk(spec: S, checkpoint: Path) -> S:
    """The spec with the batches that the checkpoint's training had come to."""
    state = read_state(checkpoint)
    return replace(spec, **{name: state[name] for name in ("batch_size", "accumulation", "batch_tokens")})


def _put(weights: "dict[str, Tensor]", model: "PeftModel") -> None:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def _keep_four_bit_gradients_exact(model: "PeftModel") -> None:
    """Stop bitsandbytes 0.50 from repacking 4-bit weights in validation, after which gradients on a CPU are wrong."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def _keep_float32_adapters(model: "PeftModel", tier: Tier) -> None:
    """Undo TRL's cast of adapters on quantised bases to bfloat16 where the card has none (its scaler needs float32)."""
    if tier.dtype != "float16":
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
