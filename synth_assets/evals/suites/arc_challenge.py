"""ARC-Challenge: the ARC questions that retrieval and word co-occurrence methods get wrong."""

from synth_assets.evals.suites.arc_easy import arc

SUITE = arc("arc_challenge", "ARC-Challenge")
