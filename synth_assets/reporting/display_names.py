"""What readers call a model: in tables, figures, sentences and descriptions."""

WORDS = {"on_policy": "on-policy", "lora": "LoRA", "dpo": "DPO", "_": " "}


def display_name(model: str) -> str:
    """Of an adapter asset, or "base": "on-policy DPO" for "on_policy_dpo_adapter"."""
    for part, word in WORDS.items():
        model = model.replace(part, word)
    return model.removesuffix(" adapter")
