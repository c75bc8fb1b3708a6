"""Commands see the deployment as its runs do."""

import pytest

from resources.hardware import LLAMA
from synth_assets.commands.plan import make_plan
from synth_assets.commands.session import open_session


def test_a_named_model_replaces_the_tiers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_PRESET", "qwen")
    monkeypatch.setenv("SYNTH_BASE", "owner/base")
    session = open_session("cpu")
    tier = session.tier
    assert (tier.teacher, tier.base) == ("Qwen/Qwen2.5-7B-Instruct", "owner/base")
    assert tier.reward == LLAMA["reward"]
    assert session.hardware.limits() == tier


def test_a_plan_scales_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTH_PRESET", raising=False)
    plan = make_plan(open_session("cpu"), 100)
    assert (plan.rows, plan.tokens_at_most, plan.minutes) == (100, 100 * (64 + 64), None)
