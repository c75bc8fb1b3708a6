"""The command `synth reward`."""

import pytest

from synth_assets.cli.app import reward
from synth_assets.cli.session import Session


def test_a_home_without_pairs_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "preload_steps", lambda _: None)
    with pytest.raises(ValueError, match="needs filtered_preferences, recalled_rows, base_model, never materialised"):
        reward(setting=None, tier="cpu")
