"""Checks of the stage reward_training: accuracy on held-out pairs, null models, leakage and the stored files."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg

from checks.grouping import checks_of
from checks.sentences import none_found, sentence
from checks.stored_folders import folder_problems
from resources.inference import Inference
from resources.storage import SynthHome
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.reward_training.accuracy import TrainedReward, accuracy_of
from synth_assets.stages.reward_training.pairs import HELD_OUT, TRAIN
from synth_assets.storage.stored_files import read_table
from synth_assets.training.reward import HEAD

CHANCE = 0.5
MAX_P_VALUE = 0.05
MAX_COMPARED = 16  # weight matrices; LoRA changes all matrices of its modules or none
RETRAIN = "Train again: synth reward --set trained_reward_model.force=true"
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def held_out_accuracy_beats_chance(trained_reward_model: TrainedReward) -> dg.AssetCheckResult:
    """Check that the confidence interval of the accuracy on held-out pairs is above CHANCE."""
    accuracy = trained_reward_model.held_out
    passed = accuracy.low > CHANCE
    return dg.AssetCheckResult(
        passed=passed,
        severity=WARN,
        description=sentence(
            f"held-out accuracy {accuracy.text()}",
            f"its lower bound must be above {CHANCE}",
            "Import more pairs, or train longer (epochs, learning_rate); do not use this model",
            passed=passed,
        ),
        metadata={"accuracy": accuracy.value, "low": accuracy.low, "n": accuracy.n, "limit": CHANCE},
    )


def reward_beats_longer_is_better(trained_reward_model: TrainedReward) -> dg.AssetCheckResult:
    """Check that the model is significantly better than preferring the longer answer, on the same held-out pairs."""
    test, longer = trained_reward_model.against_longer, trained_reward_model.longer
    passed = test.difference > 0 and test.p_value < MAX_P_VALUE
    return dg.AssetCheckResult(
        passed=passed,
        severity=WARN,
        description=sentence(
            f"accuracy {trained_reward_model.held_out.value:.3f} against {longer.value:.3f} of preferring the longer "
            f"answer, n = {test.n}, p = {test.p_value:.3g} ({test.test})",
            f"it must be higher, with p below {MAX_P_VALUE}",
            "Import more pairs, and pairs whose rejected answer is the longer one",
            passed=passed,
        ),
        metadata={"difference": test.difference, "p_value": test.p_value, "n": test.n, "limit": MAX_P_VALUE},
    )


def accuracies_follow_from_the_pairs(trained_reward_model: TrainedReward, home: SynthHome) -> dg.AssetCheckResult:
    """Check that both accuracies equal those computed from the stored rewards of each pair."""
    scored = read_table(home.root() / trained_reward_model.pairs)
    stored = {TRAIN: trained_reward_model.train, HELD_OUT: trained_reward_model.held_out}
    wrong = [f"{split}: expected {expected.text()}, got {accuracy.text()}" for split, accuracy in stored.items()
             if (expected := accuracy_of(scored, split)) != accuracy]  # fmt: skip
    return none_found(wrong, "accuracies do not follow from the stored pairs", RETRAIN)


def no_group_in_both_splits(trained_reward_model: TrainedReward, home: SynthHome) -> dg.AssetCheckResult:
    """Check that no group of similar instructions is both trained on and held out."""
    scored = read_table(home.root() / trained_reward_model.pairs)
    train, held_out = (scored.filter(fate=split)["group"].unique() for split in (TRAIN, HELD_OUT))
    shared = held_out.filter(held_out.is_in(train.implode())).sort().to_list()
    return none_found(
        shared, "groups are trained on and held out", f"The accuracy is too high by an unknown amount. {RETRAIN}"
    )


def reward_model_is_complete(trained_reward_model: TrainedReward, home: SynthHome) -> dg.AssetCheckResult:
    """Check that the files of the reward model match their manifest, and the manifest its record."""
    problems = folder_problems(home.root() / trained_reward_model.path, trained_reward_model.manifest_sha256)
    return none_found(problems, "problems with the files", RETRAIN)


def reward_weights_changed(
    trained_reward_model: TrainedReward, base_model: ModelRecord, inference: Inference, home: SynthHome
) -> dg.AssetCheckResult:
    """Check that the matrices of the target modules differ from the base's, so that LoRA was trained and merged."""
    modules = tuple(trained_reward_model.spec["target_modules"])
    unchanged, compared = [], 0
    trained, base = (
        _matrices(folder, modules) for folder in (home.root() / trained_reward_model.path, inference.folder(base_model))
    )
    for name, path in islice(sorted(trained.items()), MAX_COMPARED):
        other = next((key for key in base if name.endswith(key) or key.endswith(name)), None)
        if other is None:
            continue
        compared += 1
        if _equal((path, name), (base[other], other)):
            unchanged.append(name)
    problems = unchanged if compared else [f"no matrix of {', '.join(modules)} in both models"]
    what = f"of {compared} compared matrices are those of the base" if compared else "problems with the matrices"
    return none_found(
        problems, what, "LoRA had no effect: check trained_reward_model.target_modules, then synth reward"
    )


def _matrices(folder: Path, modules: tuple[str, ...]) -> dict[str, Path]:
    """Return the file of each weight matrix of the modules, by name."""
    return {
        name: path
        for path in sorted(folder.glob("*.safetensors"))
        for name in _names(path)
        if HEAD not in name.split(".") and name.rpartition(".weight")[0].rpartition(".")[2] in modules
    }


def _names(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        yield from tensors.keys()


def _equal(first: tuple[Path, str], second: tuple[Path, str]) -> bool:
    """Return whether two stored tensors are equal in the coarser of their precisions."""
    import torch

    a, b = (_tensor(*where) for where in (first, second))
    coarser: Any = min((a.dtype, b.dtype), key=lambda dtype: torch.finfo(dtype).bits)
    return torch.equal(a.to(coarser), b.to(coarser))


def _tensor(path: Path, name: str) -> Any:  # noqa: ANN401 - a tensor
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        return tensors.get_tensor(name)


trained_reward_model_checks = checks_of(
    "trained_reward_model",
    watching=(
        held_out_accuracy_beats_chance,
        reward_beats_longer_is_better,
        accuracies_follow_from_the_pairs,
        no_group_in_both_splits,
        reward_model_is_complete,
        reward_weights_changed,
    ),
)
