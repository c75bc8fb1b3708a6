"""Which layers of a model LoRA can adapt, from its configuration alone."""

from synth_assets.llm.model_files import resolve
from synth_assets.training.errors import TrainingError
from synth_assets.training.preconditions import check_targets
from synth_assets.training.specs import LoraSpec


def missing_modules(location: str, spec: LoraSpec) -> str:
    """Return why the target modules of a spec do not fit a model, naming those that would; empty where they fit.

    The model is built without memory for its weights, which are not fetched.

    Raises:
        ModelFilesError: the model's description cannot be had.
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
