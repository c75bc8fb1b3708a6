import pytest

from synth_assets.cli.moments import moment


@pytest.mark.parametrize("at", [1_795_858_259.9, "2026-11-28T09:30:59+00:00", "2026-11-28T09:30"])
def test_a_time_has_minutes_and_zone(at: float | str) -> None:
    assert moment(at) == "2026-11-28 09:30 UTC"
