"""Load models and adapters from local folders: safetensors only, no remote code, no network access."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from synth_assets.llm.chat_encoding import default_chat_template
from synth_assets.llm.quiet import silence_libraries
from synth_assets.schemas.tier import Tier

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>")
"""Pad tokens of Llama 3, Qwen and Gemma, for tokenizers that name none. The fallback is the end-of-text token."""


def silence_transformers() -> None:
    """Silence the model libraries before first use."""
    silence_libraries()
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def prepare_libraries(tier: Tier) -> None:
    """Silence the model libraries before first use, and set the tier's torch threads on a CPU.

    Steps of embedded models run two at a time with one thread each; more would compete for the cores.
    """
    silence_transformers()
    import torch

    if tier.device == "cpu":
        torch.set_num_threads(tier.threads)
    elif not torch.cuda.is_available():
        raise ValueError("this torch build cannot use the GPU; install the CUDA build of torch or select the tier cpu")


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load a tokenizer that pads on the left, adding a pad token and a chat template if it has none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None:
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        tokenizer.pad_token = next((token for token in PAD_TOKENS if token in added), tokenizer.eos_token)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = default_chat_template(tokenizer)
    tokenizer.padding_side = "left"
    return tokenizer


def load_causal_model(folder: Path, tier: Tier) -> "PreTrainedModel":
    """Load a causal language model in the tier's precision and on its device."""
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": getattr(torch, tier.dtype), "attn_implementation": attention(tier, folder)}
    if tier.quantisation != "none":
        options["quantization_config"] = _quantisation_config(tier)
    return AutoModelForCausalLM.from_pretrained(folder, **_safe_options(tier), **options)


def load_classifier(folder: Path, tier: Tier, dtype: str) -> "PreTrainedModel":
    """Load a sequence classifier, such as a reward model, in the given precision."""
    import torch
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        folder, **_safe_options(tier), dtype=getattr(torch, dtype)
    )


def attention(tier: Tier, folder: Path | None = None) -> str:
    """Return the attention implementation for a model: the tier's, or the fastest one available.

    Logs a warning for a fallback. Gemma 2 falls back to "eager", because PyTorch's kernel cannot cap attention scores.
    """
    from transformers.utils.import_utils import is_flash_attn_2_available

    log = logging.getLogger(__name__)
    chosen = tier.attention
    if chosen == "flash_attention_2" and not is_flash_attn_2_available():
        log.warning("flash-attn is not installed; falling back to PyTorch attention, which is slower")
        chosen = "sdpa"
    supported = _supported_attention(folder) if folder else (chosen,)
    if chosen in supported:
        return chosen
    log.warning(
        "Transformers has no %s attention for %s; falling back to %s, which is slower", chosen, folder, supported[0]
    )
    return supported[0]


def _supported_attention(folder: Path) -> tuple[str, ...]:
    """Return the attention implementations of a model's architecture, fastest without an extra package first."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    sdpa = ("sdpa",) if getattr(kind, "_supports_sdpa", False) else ()
    flash = ("flash_attention_2",) if getattr(kind, "_supports_flash_attn", False) else ()
    return (*sdpa, "eager", *flash)


def apply_adapter(network: "PreTrainedModel", adapter: Path) -> "tuple[PreTrainedModel, torch.Tensor | None]":
    """Apply an adapter to a model: merge LoRA into the weights, or keep it separate if they are quantised.

    Returns:
        The model, and the (count, width) virtual tokens of a prompt-tuning adapter, or None.

    Raises:
        ValueError: the folder has no safetensors weights of an adapter, or the adapter is neither LoRA nor prompt
            tuning.
    """
    from peft import PeftConfig

    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise ValueError(f"{adapter} has no {ADAPTER_WEIGHTS}; only safetensors adapters are supported")
    kind = PeftConfig.from_pretrained(str(adapter)).peft_type
    if kind == "PROMPT_TUNING":
        with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt", device=str(network.device)) as weights:
            return network, weights.get_tensor("prompt_embeddings").to(network.dtype)
    if kind != "LORA":
        raise ValueError(f"{adapter} must be a LORA or PROMPT_TUNING adapter, got {kind}")
    attached: Any = load_adapter(network, adapter)
    quantised = getattr(network, "is_quantized", False)
    return (attached.get_base_model() if quantised else attached.merge_and_unload()), None


def _safe_options(tier: Tier) -> dict[str, Any]:
    return {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "device_map": {"": 0} if tier.device == "cuda" else None,
    }


def _quantisation_config(tier: Tier) -> "BitsAndBytesConfig":
    import torch
    from transformers import BitsAndBytesConfig

    if tier.quantisation == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, tier.dtype),
    )


def load_adapter(model: "PreTrainedModel", folder: Path, *, is_trainable: bool = False) -> "PeftModel":
    """Load the adapter in `folder` onto a base model, from safetensors."""
    from peft import PeftModel

    with suppress_peft_warning():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable, use_safetensors=True)


@contextmanager
def suppress_peft_warning() -> Iterator[None]:
    """Suppress PEFT 0.21's deprecation warning for `is_gradient_checkpointing`, which Transformers 5.23 renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
