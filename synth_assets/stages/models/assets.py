"""Assets of the stage models: records of the teacher, the base model and the reward model."""

from dataclasses import asdict

import dagster as dg

from resources.hardware import Role
from resources.inference import Inference
from resources.storage import SynthHome
from synth_assets.schemas.records import ModelRecord


@dg.asset(group_name="models", kinds={"huggingface"}, owners=["team:data"])
def teacher_model(inference: Inference) -> dg.MaterializeResult:
    """Resolve the teacher: the chat model that generates instructions and responses."""
    return _resolved(inference, "teacher")


@dg.asset(group_name="models", kinds={"huggingface"}, owners=["team:training"])
def base_model(inference: Inference) -> dg.MaterializeResult:
    """Resolve the base model that adapters are trained on; a new base makes every adapter stale."""
    return _resolved(inference, "base")


@dg.asset(group_name="models", kinds={"huggingface"}, owners=["team:data"])
def reward_model(inference: Inference) -> dg.MaterializeResult:
    """Resolve the reward model that ranks responses."""
    return _resolved(inference, "reward")


def _resolved(inference: Inference, role: Role) -> dg.MaterializeResult[ModelRecord]:
    record = inference.resolve(role)
    metadata = {**asdict(record), "size": inference.hardware.size(role).text()}
    if role != "reward":
        metadata["chat_template"] = inference.template_source(record)
    return SynthHome.record_result(record, record.revision, metadata)
