"""LoRA adapters with random weights, of the embedded base by default."""

from pathlib import Path
from typing import Any

from synth_assets.embedded import model_path
from synth_assets.llm.loading import load_adapter, load_causal_model, suppress_peft_warning
from synth_assets.schemas.tier import CPU_FLOAT32

MODULES = ["q_proj", "v_proj", "down_proj"]
CHANGE = 0.05  # standard deviation of the weights that are added to lora_B


def random_lora(folder: Path, seed: int, continued: Path | None = None, base: Path | None = None) -> Path:
    """Save an adapter with random weights, or one that continues the training of another; return its folder."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = load_causal_model(base or Path(model_path("base")), CPU_FLOAT32)
    if continued is None:
        config = LoraConfig(r=4, lora_alpha=8, target_modules=MODULES, task_type="CAUSAL_LM")
        with suppress_peft_warning():
            network: Any = get_peft_model(model, config)
    else:
        network = load_adapter(model, continued, is_trainable=True)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            weight.data += CHANGE * torch.randn(weight.shape, generator=generator)
    network.save_pretrained(str(folder))
    return folder
