import math

import pytest

from synth_assets.stats.agreement import Agreement, agreement_text, agreements, cohens_kappa


def test_kappa_matches_hand_arithmetic() -> None:
    # 20 both keep, 5 only the first, 10 only the second, 15 both reject: observed .7, expected .5*.6 + .5*.4 = .5
    first = ["keep"] * 25 + ["reject"] * 25
    second = ["keep"] * 20 + ["reject"] * 5 + ["keep"] * 10 + ["reject"] * 15
    assert cohens_kappa(first, second) == pytest.approx(0.4)


def test_kappa_at_its_edges() -> None:
    assert cohens_kappa(["a", "b"], ["a", "b"]) == 1
    assert cohens_kappa(["a", "b"], ["b", "a"]) == -1
    assert math.isnan(cohens_kappa(["a", "a"], ["a", "a"]))
    with pytest.raises(ValueError, match="got 1 and 0"):
        cohens_kappa(["a"], [])


def test_only_rows_that_both_reviewers_judged_count() -> None:
    verdicts = {
        "r1": {"ada": "keep", "ben": "keep"},
        "r2": {"ada": "reject", "ben": "reject", "cid": "keep"},
        "r3": {"ada": "keep"},
    }
    found = agreements(verdicts)
    assert found[0] == Agreement("ada", "ben", 2, 1.0, 1.0)
    assert [(each.first, each.second, each.n) for each in found[1:]] == [("ada", "cid", 1), ("ben", "cid", 1)]
    assert agreements({"r3": {"ada": "keep"}}) == []


def test_the_line_has_counts_and_says_when_kappa_is_undefined() -> None:
    assert agreement_text(Agreement("ada", "ben", 50, 0.82, 0.618)) == (
        "ada and ben: kappa 0.62, 41 of 50 rows alike (82%)"
    )
    assert "kappa undefined" in agreement_text(Agreement("ada", "ben", 2, 1.0, math.nan))
