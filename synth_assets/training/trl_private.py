"""Private parts of TRL's trainers, and of the Transformers Trainer below them, that the project uses.

No other module overrides or reads a private name of them. The docstring of each part says why the public API is not
enough. pyproject.toml bounds the versions, and tests/training/test_trl_private.py fails if a part changes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth_assets.training.pair_losses import PairLoss, response_logprobs

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import Tensor
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_trainer import KTOTrainer
    from trl.trainer.reward_trainer import RewardTrainer
    from trl.trainer.sft_trainer import SFTTrainer

IGNORED = -100  # label without a log-probability
REFERENCE_ADAPTER = "ref"  # name of TRL's copy of a continued adapter


class TrainerHooks:
    """Overrides of private methods; each calls a public method that `loop.TrainerMixin` defines.

    The public callbacks cannot replace what a checkpoint contains, and cannot skip an epoch of a resumed training.
    """

    def _send_telemetry(self) -> None:
        """Send nothing. TRL reports each trainer's use, also where the variable that disables it is not set."""

    def _run_epoch(self: Any, *arguments: Any, **named: Any) -> None:  # noqa: ANN401
        if not self.skips_epoch():
            super()._run_epoch(*arguments, **named)  # pyright: ignore[reportAttributeAccessIssue]

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:  # noqa: ANN401
        self.write_checkpoint()

    def _load_from_checkpoint(self: Any, checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        self.restore_weights(Path(checkpoint))

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self._total_train_tokens = self.restore_optimizer(Path(checkpoint))

    def _load_scaler(self: Any, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.restore_scaler(Path(checkpoint))

    def _load_rng_state(self: Any, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.restore_random(Path(checkpoint))


def sft_trainer(hooks: type[TrainerHooks]) -> "type[SFTTrainer]":
    """Return TRL's SFT trainer with the hooks, for rows with their own labels."""
    from trl.trainer.sft_trainer import SFTTrainer

    class ResponseTrainer(hooks, SFTTrainer):
        """SFT trainer for rows with their own labels."""

    return ResponseTrainer


def dpo_trainer(hooks: type[TrainerHooks]) -> "type[DPOTrainer]":
    """Return TRL's DPO trainer with the hooks, for tokenised pairs with precomputed reference log-probabilities.

    The public arguments always tokenise pairs again and compute the log-probabilities of the reference again.
    """
    from trl.trainer.dpo_trainer import DPOTrainer

    class PairTrainer(hooks, DPOTrainer):
        """DPO trainer for tokenised pairs with precomputed reference log-probabilities."""

        def _prepare_dataset(self, dataset: "Dataset", *_: object) -> "Dataset":
            return dataset

        def _precompute_ref_logps(self, dataset: "Dataset", *_: object) -> "Dataset":
            return dataset

    return PairTrainer


def pair_loss_trainer(hooks: type[TrainerHooks], loss: PairLoss) -> "type[DPOTrainer]":
    """Return TRL's DPO trainer with the hooks and a loss that needs no reference, for tokenised pairs.

    TRL 1.16 has these losses only in `trl.experimental`, whose trainers tokenise and truncate by themselves, count no
    tokens and may change in any release. The load-balancing loss of mixture-of-experts models is left out.
    """

    class ReferenceFreeTrainer(dpo_trainer(hooks)):
        """DPO trainer with a loss on the log-probabilities per token of both responses."""

        def compute_loss(
            self,
            model: Any,  # noqa: ANN401 - as in TRL
            inputs: Any,  # noqa: ANN401
            return_outputs: bool = False,
            num_items_in_batch: Any = None,  # noqa: ANN401
        ) -> "Tensor":
            if return_outputs:
                raise ValueError("return_outputs must be False: the model returns no logits")
            mask = inputs["completion_mask"]
            labels = inputs["input_ids"].masked_fill(mask == 0, IGNORED)
            outputs = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                labels=labels,
                use_cache=False,
                fused_lm_head=True,
            )
            value, margins = loss(response_logprobs(outputs.log_probs[:, -(mask.shape[1] - 1) :], mask[:, 1:]))
            metrics = self._metrics["train" if model.training else "eval"]
            if model.training:
                self._total_train_tokens += int(inputs["attention_mask"].sum())
            metrics["num_tokens"] = [self._total_train_tokens]
            metrics["rewards/margins"].append(margins.mean().item())
            metrics["rewards/accuracies"].append((margins > 0).float().mean().item())
            return value

    return ReferenceFreeTrainer


def kto_trainer(hooks: type[TrainerHooks]) -> "type[KTOTrainer]":
    """Return TRL's KTO trainer with the hooks, for tokenised rows with precomputed reference log-probabilities.

    The public arguments always tokenise rows again, pair each prompt with its neighbour's response in file order, and
    compute the log-probabilities of the reference again.
    """
    from trl.trainer.kto_trainer import KTOTrainer

    class DesirabilityTrainer(hooks, KTOTrainer):
        """KTO trainer for tokenised rows with precomputed reference log-probabilities."""

        def _prepare_dataset(self, dataset: "Dataset", *_: object) -> "Dataset":
            return dataset

        def _precompute_ref_logps(self, dataset: "Dataset", *_: object) -> "Dataset":
            return dataset

    return DesirabilityTrainer


def reward_trainer(hooks: type[TrainerHooks]) -> "type[RewardTrainer]":
    """Return TRL's reward trainer with the hooks, for tokenised pairs."""
    from trl.trainer.reward_trainer import RewardTrainer

    class RankingTrainer(hooks, RewardTrainer):
        """Reward trainer for tokenised pairs."""

    return RankingTrainer


def delete_reference_adapter(model: "PeftModel") -> None:
    """Delete the copy of the adapter that TRL's DPO and KTO trainers make for reference log-probabilities."""
    model.delete_adapter(REFERENCE_ADAPTER)
