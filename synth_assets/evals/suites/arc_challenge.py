"""The questions of ARC that retrieval and word statistics fail at."""

from synth_assets.evals.suites.arc_easy import arc

SUITE = arc("arc_challenge", "ARC-Challenge")
