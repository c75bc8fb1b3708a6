"""The shapes of everything that is stored: table schemas, and records kept as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

BASE = "base"  # what the base model is called among them


@dataclass(frozen=True)
class ModelRecord:
    """A model that a stage uses: where it is and exactly which one.

    `location` is a hub repository or a folder; `revision` a commit, or the hash of the folder's files.
    """

    role: Literal["teacher", "base", "reward"]
    location: str
    revision: str
    family: str
    context_tokens: int

    @property
    def name(self) -> str:
        """What tables and files call it: the repository, or a folder's last part, which hides where it lies."""
        return PurePath(self.location).name if PurePath(self.location).is_absolute() else self.location


@dataclass(frozen=True)
class AdapterRecord:
    """What an adapter asset returns; the weights lie in `path` under SYNTH_HOME, completed by a manifest."""

    name: str
    method: str  # a key of METHODS
    role: Literal["candidate", "control"]
    fingerprint: str
    path: str
    manifest_sha256: str
    model_version: str
    mlflow_run_id: str
    base: str
    base_revision: str
    spec: Mapping[str, Any]
    data_versions: Mapping[str, str]
    trainable_parameters: int
    total_parameters: int
    peak_memory_bytes: int
    peak_memory_kind: Literal["measured", "derived"]
    tokens_per_s: float
    seconds: float
    cost_usd: float
    final_loss: float
    failure: str = ""


@dataclass(frozen=True)
class Metric:
    """One measured number with its evidence; built from per-item results only."""

    model: str
    suite: str
    split: str
    metric: str
    value: float
    n: int
    ci_low: float
    ci_high: float
    interval: str  # "wilson 0.95", "bootstrap 0.95"
    shots: int
    harness: str
    data_hash: str  # of the items table it was measured on
    items_sha256: str  # of the stored per-item results it is recomputed from
    mlflow_run_id: str
    kind: Literal["measured", "derived"] = "measured"
    unanswerable: int = 0  # items left out of n because the model cannot take them


@dataclass(frozen=True)
class UnanswerableItems:
    """How many of the `asked` items of a suite and split a model cannot take, for one reason of UNANSWERABLE."""

    model: str
    suite: str
    split: str
    reason: str
    items: int
    asked: int


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same items: how often only one of them was right, and how likely that is by chance.

    `difference` is the second's mean minus the first's; `p_holm` is corrected over all tests of one comparison.
    """

    first: str
    second: str
    suite: str
    split: str
    metric: str
    n: int
    only_first: int
    only_second: int
    difference: float
    p_value: float
    test: str = "exact McNemar"
    p_holm: float | None = None
    left_out: int = 0  # items that one of the two cannot take; neither is compared on them


@dataclass(frozen=True)
class Comparison:
    """All models side by side, and the candidate that promotion judges."""

    metrics: list[Metric]
    tests: list[PairedTest]
    candidate: str
    failures: Mapping[str, str]
    samples: list[Mapping[str, str]] = field(default_factory=list)
    without_overlap: list[Metric] = field(default_factory=list)  # on test items of which training saw nothing
    win_rates: list[Metric] = field(default_factory=list)  # over the base, by the reward model
    unanswerable: list[UnanswerableItems] = field(default_factory=list)


@dataclass(frozen=True)
class Clause:
    """One condition of the promotion policy and whether it held."""

    name: str
    passed: bool
    actual: str
    expected: str


@dataclass(frozen=True)
class Decision:
    """What promotion decided, on which evidence."""

    outcome: Literal["promoted", "refused", "unchanged"]
    candidate: str
    candidate_version: str
    opponent: str
    opponent_version: str
    clauses: list[Clause]
    reason: str


@dataclass(frozen=True)
class CheckResult:
    """What one check said about one version of an asset; whatever was never said is "missing"."""

    asset: str  # with its partition: "raw_instructions[2026-W47]"
    data_version: str
    check: str
    status: Literal["passed", "warned", "failed", "missing"]
    detail: str = ""


@dataclass(frozen=True)
class RecordedDecision:
    """A decision as it is kept beside the version that it is about.

    Args:
        decision: with its clauses.
        by: who asked for it.
        at: when it was made, ISO 8601, UTC.
        run_id: of Dagster.
        checks: how many of the checks on the data and scores of the version ended how.
        scores: the score tags of the version at that time.
    """

    decision: Decision
    by: str
    at: str
    run_id: str
    checks: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LastDecision:
    """The newest decision on promotion, about whichever version; it says nothing about the version that serves."""

    outcome: Literal["promoted", "refused", "unchanged"]
    candidate: str
    candidate_version: str
    reason: str
    asked_by: str
    at: str  # ISO 8601, UTC
    dagster_run_id: str


@dataclass(frozen=True)
class ChampionRecord:
    """The version that `@champion` points to and how it came to serve; the base model while nothing serves.

    Everything but `last` belongs to the decision or the move by which the version serves, and stays until another
    version serves.
    """

    version: str  # empty for the base, as are fingerprint and path
    name: str  # the adapter asset it came from, or "base"
    fingerprint: str
    path: str  # of the adapter under SYNTH_HOME
    previous_version: str
    action: Literal["promoted", "rolled back", "moved by hand", "kept"]
    moved_by: str
    moved_at: str  # ISO 8601, UTC
    dagster_run_id: str
    reason: str
    flagged: bool = False  # moved by hand where the policy would have refused
    batch: str = ""  # whose run trained it
    clauses: list[Clause] = field(default_factory=list)
    scores: Mapping[str, str] = field(default_factory=dict)  # its score tags when it came to serve
    last: LastDecision | None = None
