"""Contract test: the private parts of TRL and Transformers have the names and arguments that the project relies on."""

import ast
import inspect
from importlib.metadata import version
from pathlib import Path

import pytest

from resources.deployment import PROJECT
from synth_assets.training import trl_private

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

REMEDY = f"TRL {version('trl')} differs from the release that synth_assets/training/trl_private.py was written for"

TRAINER = {
    "_send_telemetry": ["self"],
    "_run_epoch": ["self", "model", "epoch"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_load_scaler": ["self", "checkpoint"],
    "_load_rng_state": ["self", "checkpoint"],
}
DPO = {
    "_prepare_dataset": ["self", "dataset"],
    "_precompute_ref_logps": ["self", "dataset", "name", "batch_size"],
}


def trainers() -> dict[str, type]:
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.reward_trainer import RewardTrainer
    from trl.trainer.sft_trainer import SFTTrainer

    return {"SFTTrainer": SFTTrainer, "DPOTrainer": DPOTrainer, "RewardTrainer": RewardTrainer}


@pytest.mark.parametrize(
    ("trainer", "name", "expected"),
    [
        *(
            (trainer, name, expected)
            for trainer in ("SFTTrainer", "RewardTrainer")
            for name, expected in TRAINER.items()
        ),
        *(("DPOTrainer", name, expected) for name, expected in {**TRAINER, **DPO}.items()),
    ],
)
def test_an_overridden_method_has_the_arguments(trainer: str, name: str, expected: list[str]) -> None:
    method = getattr(trainers()[trainer], name, None)
    assert method is not None, f"{REMEDY}: {trainer}.{name} does not exist"
    actual = list(inspect.signature(method).parameters)
    assert actual[: len(expected)] == expected, f"{REMEDY}: {trainer}.{name} takes {', '.join(actual)}"


def test_every_override_is_under_contract() -> None:
    overridden = {name for name in vars(trl_private.TrainerHooks) if name.startswith("_") and not name.endswith("__")}
    assert overridden == set(TRAINER)


@pytest.mark.parametrize("trainer", ["SFTTrainer", "DPOTrainer", "RewardTrainer"])
def test_the_trainer_counts_its_tokens(trainer: str) -> None:
    source = inspect.getsource(trainers()[trainer])
    assert "self._total_train_tokens = 0" in source, f"{REMEDY}: {trainer}._total_train_tokens is not set"


def test_the_dpo_trainer_copies_a_continued_adapter_under_the_name_that_is_deleted() -> None:
    source = inspect.getsource(trainers()["DPOTrainer"].__init__)
    assert f'model.add_adapter("{trl_private.REFERENCE_ADAPTER}"' in source, f"{REMEDY}: no adapter of that name"


def test_only_one_module_names_a_trainer_of_trl() -> None:
    naming = {
        path.name
        for path in (PROJECT / "synth_assets").rglob("*.py")
        for module in imported_at_run_time(path)
        if module in {"trl", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "trl.trainer.reward_trainer"}
    }
    assert naming == {"trl_private.py"}


def imported_at_run_time(path: Path) -> list[str]:
    """Return the modules that a file imports outside `if TYPE_CHECKING` blocks."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    return [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node not in typing_only
    ]
