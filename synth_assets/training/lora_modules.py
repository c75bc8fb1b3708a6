"""Check LoRA target modules against a model's configuration, without its weights."""

from synth_assets.llm.model_files import resolve
from synth_assets.training.errors import TrainingError
from synth_assets.training.preconditions import check_targets
from synth_assets.training.specs import LoraSpec


def missing_modules(location: str, spec: LoraSpec) -> str:
    """Return an error message if a spec's target modules do not match a model's layers, else "".

    The model is built on the meta device; its weights are not downloaded.

    Raises:
        ModelFilesError: the model's configuration is unavailable.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = resolve(location).folder
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    try:
        check_targets(model, spec)
    except TrainingError as error:
        return str(error)
    return ""
