"""Accuracy of reward models on preference pairs, and the record of a trained one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from synth_assets.llm.protocols import RewardModel
from synth_assets.schemas.records import PairedTest
from synth_assets.stages.reward_training.pairs import HELD_OUT, TRAIN
from synth_assets.stats.intervals import bootstrap_interval, estimate
from synth_assets.stats.paired import paired_test

TRAINED, LONGER, CURRENT = "trained", "longer", "current"
"""Scorers: the trained reward model, the null model that prefers the longer answer, the reward model in use."""
TIE = 0.5  # a coin would decide
METRIC = "pair_accuracy"
SCORED_PAIRS = pl.Schema(
    {
        "row_id": pl.String,
        "fate": pl.String,  # TRAIN or HELD_OUT; the column's name is that of every row manifest
        "pair_id": pl.String,
        "group": pl.String,
        TRAINED: pl.Float64,  # reward of the chosen answer minus that of the rejected one
        LONGER: pl.Float64,  # characters of the chosen answer minus those of the rejected one
        CURRENT: pl.Float64,  # as TRAINED; null if it was not measured
    }
)


@dataclass(frozen=True)
class Accuracy:
    """Share of pairs whose chosen answer is preferred; a tie counts one half.

    The interval is the wider of the intervals by pair (Wilson) and by group (bootstrap), because pairs of a group are
    not independent.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int
    ties: int

    def text(self) -> str:
        """Format the accuracy, such as "0.812 (0.700 to 0.890, n = 60)"."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


@dataclass(frozen=True)
class TrainedReward:
    """The value of the asset `trained_reward_model`. Its files are in `path` below SYNTH_HOME, with a manifest.

    `pairs` is the path of SCORED_PAIRS below SYNTH_HOME; every accuracy follows from it.
    """

    fingerprint: str
    path: str
    pairs: str
    manifest_sha256: str
    base: str
    base_revision: str
    spec: Mapping[str, Any]
    train: Accuracy
    held_out: Accuracy
    longer: Accuracy
    against_longer: PairedTest
    current_model: str = ""
    current: Accuracy | None = None
    mlflow_run_id: str = ""
    data_versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def location(self) -> str:
        """Return the location of the model for SYNTH_REWARD, which stays valid when the home is moved."""
        return f"home:{self.path}"


def score_pairs(pairs: pl.DataFrame, trained: RewardModel, current: RewardModel | None) -> pl.DataFrame:
    """Return SCORED_PAIRS of pairs with their split; `current` scores the held-out pairs only."""
    lengths = pairs["chosen"].str.len_chars().cast(pl.Float64) - pairs["rejected"].str.len_chars()
    held_out = pairs.filter(split=HELD_OUT)
    scored = pairs.with_columns(
        pl.col("split").alias("fate"), pl.Series(TRAINED, _margins(trained, pairs)), lengths.alias(LONGER)
    )
    margins = _margins(current, held_out) if current else [None] * held_out.height
    other = held_out.select("pair_id", pl.Series(CURRENT, margins, dtype=pl.Float64))
    joined = scored.join(other, on="pair_id", how="left", maintain_order="left")
    return joined.select(SCORED_PAIRS.names()).cast(SCORED_PAIRS)  # pyright: ignore[reportArgumentType]


def accuracy_of(scored: pl.DataFrame, split: str, scorer: str = TRAINED) -> Accuracy:
    """Return the accuracy of a scorer on a split of SCORED_PAIRS. Raise ValueError if it scored no pair."""
    rows = scored.filter(pl.col("fate") == split, pl.col(scorer).is_not_null())
    outcomes, groups = _outcomes(rows[scorer]), rows["group"].to_list()
    by_pair, by_group = estimate(outcomes, groups), bootstrap_interval(outcomes, groups)
    return Accuracy(
        by_pair.value,
        low=min(by_pair.low, by_group[0]),
        high=max(by_pair.high, by_group[1]),
        n=by_pair.n,
        groups=len(set(groups)),
        ties=outcomes.count(TIE),
    )


def against_longer(scored: pl.DataFrame) -> PairedTest:
    """Compare the trained model with the longer answer on the held-out pairs; `difference` is trained minus longer."""
    rows = scored.filter(fate=HELD_OUT)
    first, second = _outcomes(rows[LONGER]), _outcomes(rows[TRAINED])
    return paired_test((LONGER, TRAINED), ("pairs", HELD_OUT, METRIC), first, second, rows["group"].to_list())


def numbers_of(record: TrainedReward) -> dict[str, float]:
    """Return the accuracies with intervals and numbers of pairs, for metadata and MLflow."""
    parts = {HELD_OUT: record.held_out, TRAIN: record.train, LONGER: record.longer, CURRENT: record.current}
    numbers: dict[str, float] = {}
    for name, accuracy in parts.items():
        if accuracy:
            numbers[f"{name}_accuracy"] = accuracy.value
            numbers |= {f"{name}_{part}": float(getattr(accuracy, part)) for part in ("low", "high", "n", "groups")}
    return numbers | {"difference_from_longer": record.against_longer.difference}


def _margins(model: RewardModel, pairs: pl.DataFrame) -> list[float]:
    histories: Sequence[Any] = [turns or [] for turns in pairs["history"].to_list()]
    chosen, rejected = (
        model.score(list(pairs.select("instruction", side).iter_rows()), histories) for side in ("chosen", "rejected")
    )
    return (chosen - rejected).tolist()


def _outcomes(margins: pl.Series) -> list[float]:
    """Return 1 for a positive margin, TIE for 0, and 0 for a negative one or NaN."""
    values = margins.to_numpy()
    return np.where(values > 0, 1.0, np.where(values == 0, TIE, 0.0)).tolist()
