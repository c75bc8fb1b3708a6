"""Display names of models in tables, figures and text."""

WORDS = {"on_policy": "on-policy", "lora": "LoRA", "dpo": "DPO", "orpo": "ORPO", "kto": "KTO", "_": " "}


def display_name(model: str) -> str:
    """Return the display name of an adapter asset or "base", such as "on-policy DPO" for "on_policy_dpo_adapter"."""
    for part, word in WORDS.items():
        model = model.replace(part, word)
    return model.removesuffix(" adapter")
