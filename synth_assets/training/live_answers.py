"""Show a training's observer what the model answers to a few validation prompts while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synth_assets.training.callbacks import TrainingObserver
from synth_assets.training.data import Example
from synth_assets.training.memory import is_out_of_memory
from synth_assets.training.validation import greedy_answers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

ANSWERS, MAX_NEW_TOKENS = 4, 64


@dataclass(frozen=True)
class LiveAnswers:
    """Answers of a model in training to the first ANSWERS of `examples`, for `observer`."""

    examples: Sequence[Example]
    observer: TrainingObserver

    def write(self, step: int, model: "PeftModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        """Write greedy answers of at most MAX_NEW_TOKENS if the observer wants them.

        Draws no random numbers and leaves the mode of the model as it was. Writes nothing if memory runs out.
        """
        rows = list(self.examples[:ANSWERS])
        if not rows or not self.observer.wants_answers():
            return
        was_training = model.training
        model.eval()
        try:
            answers = greedy_answers(model, tokenizer, rows, len(rows), MAX_NEW_TOKENS)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return
        finally:
            model.train(was_training)
        prompts = tokenizer.batch_decode([row.prompt for row in rows], skip_special_tokens=True)
        references = tokenizer.batch_decode([row.answer for row in rows], skip_special_tokens=True)
        shown = [
            {"prompt": prompt.strip(), "reference": reference.strip(), "answer": answer.strip()}
            for prompt, reference, answer in zip(prompts, references, answers, strict=True)
        ]
        self.observer.answered(step, shown)
