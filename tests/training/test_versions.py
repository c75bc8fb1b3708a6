"""Remind to raise a method's version when its code changes. Run as a program to record the current digests."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from synth_assets.llm import chat_encoding, loading
from synth_assets.storage.code_digest import code_digest
from synth_assets.training import (
    batches,
    data,
    difficulty,
    dpo,
    engine,
    fitting,
    logprobs,
    loop,
    memory,
    prompt_tuning,
    reward,
    schedules,
    selection,
    sft,
    trl_private,
)
from synth_assets.training.methods import METHODS, REFERENCE, REFERENCE_VERSION
from synth_assets.training.reward import REWARD, REWARD_VERSION

VERSIONS = {method.key: method.version for method in METHODS.values()} | {
    REFERENCE: REFERENCE_VERSION,
    REWARD: REWARD_VERSION,
}
DIGESTS = Path(__file__).with_name("code_digests.json")
TOKENS = (chat_encoding, data, loading, engine)  # loading models and tokenising rows
LOOP = (*TOKENS, batches, difficulty, fitting, logprobs, loop, memory, schedules, selection, trl_private)
CODE: dict[str, tuple[ModuleType, ...]] = {
    "lora": (*LOOP, sft),
    "prompt_tuning": (*LOOP, sft, prompt_tuning),
    "dpo": (*LOOP, dpo),
    "on_policy_dpo": (*LOOP, dpo),
    "rejection_sampling": (*LOOP, sft),
    REFERENCE: (*TOKENS, logprobs),
    REWARD: (*LOOP, reward),
}


def current_digest(method: str) -> dict[str, object]:
    """Return the version of a method and the digest of its code."""
    sources = [Path(str(module.__file__)).read_text("utf-8") for module in CODE[method]]
    return {"version": VERSIONS[method], "code": code_digest(*sources)}


def test_every_method_has_a_version() -> None:
    assert set(VERSIONS) == set(CODE)


@pytest.mark.parametrize("method", VERSIONS)
def test_code_digest_matches_the_recorded_version(method: str) -> None:
    assert current_digest(method) == json.loads(DIGESTS.read_text("utf-8"))[method], (
        f"The code of the method {method!r} changed since its version {VERSIONS[method]} was recorded. "
        "If the same spec, rows, base and seed now give other weights, raise `version` in its row of "
        "training/methods.py, so that its adapters are trained again. If they give bit-identical weights, keep the "
        f"version. In both cases run `python {Path(__file__).relative_to(Path(__file__).parents[2])}` and commit "
        f"{DIGESTS.name}."
    )


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps({method: current_digest(method) for method in VERSIONS}, indent=1) + "\n", "utf-8")
