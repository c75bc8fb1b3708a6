"""Loading of models from resolved folders: safetensors only, no code from the folder, no network, no chatter."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from synth_assets.llm.chat_encoding import template_of_vocabulary
from synth_assets.llm.quiet import silence_libraries
from synth_assets.schemas.tier import Tier

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>")
"""For tokenizers that name none: Llama 3's, Qwen's, Gemma's; else the end of text."""


def prepare_libraries(tier: Tier) -> None:
    """Make the model libraries silent, and set the threads of the tier, before the first of them is used.

    Two steps of embedded models run side by side with one thread each: several would fight over the cores.
    """
    silence_libraries()
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if tier.device == "cpu":
        torch.set_num_threads(tier.threads)
    elif not torch.cuda.is_available():
        raise ValueError("a GPU is here but this torch cannot use it; install the CUDA build of torch, or the tier cpu")


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model's folder, padding on the left; a base model's gets a pad token and a chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None:
        known = {token.content for token in tokenizer.added_tokens_decoder.values()}
        tokenizer.pad_token = next((token for token in PAD_TOKENS if token in known), tokenizer.eos_token)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = template_of_vocabulary(tokenizer)
    tokenizer.padding_side = "left"
    return tokenizer


def load_causal_model(folder: Path, tier: Tier) -> "PreTrainedModel":
    """A language model in the tier's precision, on its device."""
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": getattr(torch, tier.dtype), "attn_implementation": attention(tier, folder)}
    if tier.quantisation != "none":
        options["quantization_config"] = _quantisation(tier)
    return AutoModelForCausalLM.from_pretrained(folder, **_safely(tier), **options)


def load_classifier(folder: Path, tier: Tier, dtype: str) -> "PreTrainedModel":
    """A model with a score for each text, in the precision named."""
    import torch
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, **_safely(tier), dtype=getattr(torch, dtype))


def attention(tier: Tier, folder: Path | None = None) -> str:
    """Return the attention to load a model with: the tier's, or the fastest that library and architecture have.

    A replacement is logged. Gemma 2 caps attention scores, which PyTorch's own kernel cannot, so it takes "eager".
    """
    from transformers.utils.import_utils import is_flash_attn_2_available

    log = logging.getLogger(__name__)
    chosen = tier.attention
    if chosen == "flash_attention_2" and not is_flash_attn_2_available():
        log.warning("flash-attn is not installed; PyTorch's attention is used, which is slower")
        chosen = "sdpa"
    supported = _supported_attention(folder) if folder else (chosen,)
    if chosen in supported:
        return chosen
    log.warning("%s has no %s attention in Transformers; %s is used, which is slower", folder, chosen, supported[0])
    return supported[0]


def _supported_attention(folder: Path) -> tuple[str, ...]:
    """Return what the architecture of a folder's model implements, the fastest without an extra package first."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    sdpa = ("sdpa",) if getattr(kind, "_supports_sdpa", False) else ()
    flash = ("flash_attention_2",) if getattr(kind, "_supports_flash_attn", False) else ()
    return (*sdpa, "eager", *flash)


def apply_adapter(network: "PreTrainedModel", adapter: Path) -> "tuple[PreTrainedModel, torch.Tensor | None]":
    """The model with an adapter: LoRA merged into its weights (kept apart where they are quantised).

    Returns:
        The model, and the (count, width) virtual tokens of a prompt-tuning adapter, which are not part of it.

    Raises:
        ValueError: the folder has no safetensors of an adapter, or one of another kind.
    """
    from peft import PeftConfig

    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise ValueError(f"{adapter} has no {ADAPTER_WEIGHTS}; adapters in other formats are refused")
    kind = PeftConfig.from_pretrained(str(adapter)).peft_type
    if kind == "PROMPT_TUNING":
        with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt", device=str(network.device)) as weights:
            return network, weights.get_tensor("prompt_embeddings").to(network.dtype)
    if kind != "LORA":
        raise ValueError(f"{adapter} is a {kind} adapter; LORA and PROMPT_TUNING are known")
    attached: Any = load_adapter(network, adapter)
    quantised = getattr(network, "is_quantized", False)
    return (attached.get_base_model() if quantised else attached.merge_and_unload()), None


def _safely(tier: Tier) -> dict[str, Any]:
    return {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "device_map": {"": 0} if tier.device == "cuda" else None,
    }


def _quantisation(tier: Tier) -> "BitsAndBytesConfig":
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


def load_adapter(model: "PreTrainedModel", folder: Path, *, trained_further: bool = False) -> "PeftModel":
    """The base with the adapter of `folder` on it, from safetensors."""
    from peft import PeftModel

    with peft_quieted():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trained_further, use_safetensors=True)


@contextmanager
def peft_quieted() -> Iterator[None]:
    """PEFT 0.21 asks a model for `is_gradient_checkpointing`, which transformers 5.23 renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
