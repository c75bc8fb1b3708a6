"""Records stored as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

BASE = "base"  # name of the base model in tables and records


@dataclass(frozen=True)
class ModelRecord:
    """A model used by a stage, pinned to a revision.

    `location` is a hub repository or a folder, relative to SYNTH_HOME after `home:`; `revision` a commit, or the hash
    of the folder's files.
    """

    role: Literal["teacher", "base", "reward"]
    location: str
    revision: str
    family: str
    context_tokens: int

    @property
    def name(self) -> str:
        """Return the name for tables and files: the repository, or the folder's name without its path."""
        is_folder = PurePath(self.location).is_absolute() or self.location.startswith("home:")
        return PurePath(self.location).name if is_folder else self.location


@dataclass(frozen=True)
class AdapterRecord:
    """The value of an adapter asset. Its weights are in `path` below SYNTH_HOME, with a manifest."""

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
    """A measured metric with its evidence; computed from per-item results only."""

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
    data_hash: str  # content hash of BENCHMARK_ITEMS
    items_sha256: str  # content hash of the per-item results
    mlflow_run_id: str
    kind: Literal["measured", "derived"] = "measured"
    unanswerable: int = 0  # items excluded from n because the model cannot take them


@dataclass(frozen=True)
class UnanswerableItems:
    """Number of items of a suite and split that a model cannot take, for one reason of UNANSWERABLE."""

    model: str
    suite: str
    split: str
    reason: str
    items: int
    asked: int


@dataclass(frozen=True)
class PairedTest:
    """A paired test of two models on the same items.

    `difference` is the mean of the second minus that of the first; `p_holm` is corrected over all tests of a
    comparison.
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
    left_out: int = 0  # items excluded because one of the two cannot take them


@dataclass(frozen=True)
class Comparison:
    """A comparison of all models, and the candidate for promotion."""

    metrics: list[Metric]
    tests: list[PairedTest]
    candidate: str
    failures: Mapping[str, str]
    samples: list[Mapping[str, str]] = field(default_factory=list)
    without_overlap: list[Metric] = field(default_factory=list)  # on test items without overlap with the training data
    win_rates: list[Metric] = field(default_factory=list)  # over the base model, by the reward model
    unanswerable: list[UnanswerableItems] = field(default_factory=list)


@dataclass(frozen=True)
class Clause:
    """A condition of the promotion policy and its result."""

    name: str
    passed: bool
    actual: str
    expected: str


@dataclass(frozen=True)
class Decision:
    """A promotion decision and its evidence."""

    outcome: Literal["promoted", "refused", "unchanged"]
    candidate: str
    candidate_version: str
    opponent: str
    opponent_version: str
    clauses: list[Clause]
    reason: str


@dataclass(frozen=True)
class CheckResult:
    """The result of a check on one version of an asset; "missing" if the check has not run on it."""

    asset: str  # with its partition: "raw_instructions[2026-W47]"
    data_version: str
    check: str
    status: Literal["passed", "warned", "failed", "missing"]
    detail: str = ""


@dataclass(frozen=True)
class RecordedDecision:
    """A decision as it is stored with its model version.

    Args:
        decision: the decision with its clauses.
        by: the user who requested it.
        at: time of the decision, ISO 8601, UTC.
        run_id: Dagster run id.
        checks: check status -> number of checks on the data and scores of the version.
        scores: score tags of the version at that time.
    """

    decision: Decision
    by: str
    at: str
    run_id: str
    checks: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LastDecision:
    """The most recent promotion decision, about any version; it says nothing about the version that serves."""

    outcome: Literal["promoted", "refused", "unchanged"]
    candidate: str
    candidate_version: str
    reason: str
    asked_by: str
    at: str  # ISO 8601, UTC
    dagster_run_id: str


@dataclass(frozen=True)
class AuditEntry:
    """Who requested a decision or a move, when (ISO 8601, UTC) and in which Dagster run."""

    who: str
    when: str
    run_id: str


@dataclass(frozen=True)
class ChampionRecord:
    """The version that `@champion` points to and how it became champion; the base model if there is none.

    All fields but `last` describe the decision or move that made the version champion, and stay until another version
    becomes champion.
    """

    version: str  # empty for the base, like fingerprint and path
    name: str  # adapter asset, or "base"
    fingerprint: str
    path: str  # adapter folder below SYNTH_HOME
    previous_version: str
    action: Literal["promoted", "rolled back", "moved by hand", "kept"]
    moved_by: str
    moved_at: str  # ISO 8601, UTC
    dagster_run_id: str
    reason: str
    flagged: bool = False  # moved by hand against the policy
    batch: str = ""  # batch of its training run
    clauses: list[Clause] = field(default_factory=list)
    scores: Mapping[str, str] = field(default_factory=dict)  # its score tags when it became champion
    last: LastDecision | None = None
