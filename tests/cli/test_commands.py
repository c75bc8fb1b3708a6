"""Sessions and estimates of `synth plan`."""

import pytest

from resources.hardware import LLAMA
from synth_assets.cli.plan import SHIPPED_RUNS, make_plan, plan_text, size_text
from synth_assets.cli.session import open_session


def test_a_named_model_replaces_the_model_of_the_tier(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert (plan.rows, plan.max_tokens) == (100, 100 * (64 + 64))


def test_the_first_plan_of_a_home_has_the_shipped_minutes_and_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTH_PRESET", raising=False)
    shipped = SHIPPED_RUNS["cpu", "embedded:teacher", "embedded:base"]
    session = open_session("cpu")
    assert make_plan(session, None).minutes == shipped.minutes
    assert make_plan(session, shipped.rows // 2).minutes == pytest.approx(shipped.minutes / 2)
    text = plan_text(session, None)
    assert f"about {shipped.minutes}" in text
    assert "up to 3 MB of tables" in text  # 1,536 rows of at most 128 tokens of 16 bytes
    assert "price" not in text


def test_a_plan_of_unmeasured_models_has_no_minutes_and_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_BASE", "owner/base")
    plan = make_plan(open_session("cpu"), 100)
    assert (plan.minutes, plan.usd) == (None, None)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "1 MB"), (999_400_000, "999 MB"), (1_000_000_000, "1.0 GB"), (75_300_000_000, "75.3 GB")],
)
def test_sizes_are_shown_in_mb_or_gb(size: int, expected: str) -> None:
    assert size_text(size) == expected
