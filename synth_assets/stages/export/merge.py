"""Merge an adapter into its base model, and measure how far the merged logits are from those of adapter on base."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth_assets.llm.chat_encoding import encode_chat
from synth_assets.llm.loading import ADAPTER_WEIGHTS, load_adapter, load_causal_model, load_tokenizer
from synth_assets.schemas.tier import CPU_FLOAT32
from synth_assets.stages.export.errors import ExportError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DTYPES = ("float16", "bfloat16")
LOGIT_TOLERANCE: Mapping[str, float] = {"float16": 0.01, "bfloat16": 0.08}
"""Largest allowed difference of a logit over the largest logit: ten times the spacing of the format."""

PROMPTS = ("What is the capital of France?", "Name three primary colours.", "Write one sentence about the sea.")
COPIED = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "chat_template*")
NOTICES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")


@dataclass(frozen=True)
class LogitDifference:
    """Difference of the logits of a merged model from those of the adapter on the base in float32.

    Attributes:
        largest: largest absolute difference of a logit.
        scale: largest absolute logit of the adapter on the base.
        tolerance: largest allowed `relative`.
        same_argmax: share of positions with the same most likely token, 0..1.
    """

    largest: float
    scale: float
    tolerance: float
    same_argmax: float

    @property
    def relative(self) -> float:
        """Return the largest difference over the largest logit."""
        return self.largest / self.scale

    @property
    def passed(self) -> bool:
        """Return whether the difference is within the tolerance."""
        return self.relative <= self.tolerance

    def text(self) -> str:
        """Return the measured difference in words."""
        return (
            f"largest logit difference {self.relative:.2e} of the largest logit, {self.tolerance:g} allowed; "
            f"same most likely token at {self.same_argmax:.1%} of positions"
        )


def check_dtype(dtype: str) -> None:
    """Raise ExportError for an unknown precision."""
    if dtype not in DTYPES:
        raise ExportError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")


def check_mergeable(adapter: Path) -> None:
    """Raise ExportError unless the folder holds a LoRA adapter in safetensors."""
    config = adapter / "adapter_config.json"
    if not config.is_file() or not (adapter / ADAPTER_WEIGHTS).is_file():
        raise ExportError(f"{adapter} has no adapter_config.json and {ADAPTER_WEIGHTS}: train again (synth run)")
    kind = json.loads(config.read_text("utf-8"))["peft_type"]
    if kind == "PROMPT_TUNING":
        raise ExportError(
            "only LoRA adapters can be merged, got PROMPT_TUNING: its virtual tokens are not weights of the base "
            "model. Export a LoRA version, or use the adapter with PEFT"
        )
    if kind != "LORA":
        raise ExportError(f"only LoRA adapters can be merged, got {kind}: use the adapter with PEFT")


def merge_model(base: Path, adapter: Path | None, folder: Path, dtype: str) -> LogitDifference:
    """Write the base model with the adapter merged into its weights to an empty folder, and compare the logits.

    An adapter that continued the training of another one (DPO on LoRA) holds the weights of both, so it alone is
    merged.

    Args:
        base: folder of the base model.
        adapter: folder of a LoRA adapter; None exports the base model.
        folder: an existing, empty folder; gets weights, tokenizer, chat template and licence notices.
        dtype: a value of DTYPES. The merge is computed in float32 and rounded once.

    Raises:
        ExportError: the adapter is not LoRA, or the precision is unknown.
    """
    import torch

    check_dtype(dtype)
    if adapter is not None:
        check_mergeable(adapter)
    tokenizer = load_tokenizer(base)
    prompts = [encode_chat(tokenizer, [{"role": "user", "content": text}])[0] for text in PROMPTS]
    network: Any = load_causal_model(base, CPU_FLOAT32).eval()
    if adapter is not None:
        network = load_adapter(network, adapter).eval()
    expected = logits(network, prompts)
    if adapter is not None:
        network = network.merge_and_unload()
    network.to(getattr(torch, dtype)).save_pretrained(folder, safe_serialization=True)
    del network
    _copy_description(base, folder)
    if not (folder / "chat_template.jinja").exists():
        (folder / "chat_template.jinja").write_text(str(tokenizer.chat_template), "utf-8")
    actual = logits(load_causal_model(folder, CPU_FLOAT32).eval(), prompts)
    return compare_logits(expected, actual, LOGIT_TOLERANCE[dtype])


def logits(network: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> "list[torch.Tensor]":
    """Return the (tokens, vocabulary) float32 logits of each prompt."""
    import torch

    with torch.inference_mode():
        return [network(input_ids=torch.tensor([list(prompt)])).logits[0].float() for prompt in prompts]


def compare_logits(
    expected: "Sequence[torch.Tensor]", actual: "Sequence[torch.Tensor]", tolerance: float
) -> LogitDifference:
    """Compare logits position by position. A difference that is not a number fails."""
    import torch

    first, second = torch.cat(list(expected)), torch.cat(list(actual))
    largest = float((first - second).abs().max())
    return LogitDifference(
        largest=largest,
        scale=float(first.abs().max()),
        tolerance=tolerance,
        same_argmax=float((first.argmax(dim=1) == second.argmax(dim=1)).float().mean()),
    )


def _copy_description(base: Path, folder: Path) -> None:
    """Copy tokenizer, chat template and licence notices unchanged."""
    for pattern in (*COPIED, *NOTICES):
        for path in base.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
