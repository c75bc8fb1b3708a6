"""The shapes of everything that is stored: table schemas, and records kept as JSON."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import PurePath
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import polars as pl

from synth_assets.rounds import ROUNDS

R = TypeVar("R")

ADAPTERS = (
    "prompt_tuning_adapter",
    "lora_adapter",
    "rejection_sampling_adapter",
    *(name for one in ROUNDS for name in (one.adapter, one.control)),
)
"""The assets that are examined beside the base model, in the order they are shown."""

CONTROLS = tuple(one.control for one in ROUNDS)  # scored, never candidates
BASE = "base"  # what the base model is called among them

TURN = pl.Struct({"role": pl.String, "content": pl.String})

INSTRUCTIONS = pl.Schema(
    {
        "row_id": pl.String,
        "source": pl.String,  # "magpie", or the name of the imported file
        "batch": pl.String,
        "history": pl.List(TURN),  # earlier turns, often empty
        "instruction": pl.String,
        "response": pl.String,
        "model": pl.String,
        "revision": pl.String,
        "engine": pl.String,
        "template": pl.String,  # model family, a key of FAMILIES
        "topic": pl.String,  # whose system prompt steered the user's turns, a key of MagpieSpec.topics; null: none
        "seed": pl.Int64,
        "temperature": pl.Float64,
        "response_temperature": pl.Float64,
        "top_p": pl.Float64,
        "instruction_tokens": pl.Int32,
        "response_tokens": pl.Int32,
        "history_tokens": pl.Int32,  # generated in the turns of `history`, all of which ended by themselves
        "instruction_finish_reason": pl.String,  # "stop", "length"; null for imports
        "response_finish_reason": pl.String,
    }
)
JUDGED = pl.Schema({**INSTRUCTIONS, "score": pl.Float64})
REJECTED = pl.Schema({**INSTRUCTIONS, "reason": pl.String, "detail": pl.String})
SFT_ROWS = pl.Schema({**JUDGED, "group": pl.String, "split": pl.String})
RECALLS = pl.Schema({"row_id": pl.String, "reason": pl.String, "by": pl.String, "at": pl.String})
BENCHMARK_ITEMS = pl.Schema(
    {
        "item_id": pl.String,
        "suite": pl.String,
        "split": pl.String,  # "validation", "test", or "sealed": asked at a promotion only
        "kind": pl.String,  # "generation", "choice", or "harness": a task of lm-eval's own
        "prompt": pl.String,
        "choices": pl.List(pl.String),  # empty for generation
        "answer": pl.String,  # the choice's index as text, or what the suite's verifier needs
        "cluster": pl.String,  # items that share a fact; intervals may resample clusters
        "item_hash": pl.String,
    }
)
CANDIDATES = pl.Schema(
    {
        "candidate_id": pl.String,
        "row_id": pl.String,  # of the instruction in sft_dataset
        "group": pl.String,
        "split": pl.String,
        "history": pl.List(TURN),  # of the instruction's row
        "instruction": pl.String,
        "response": pl.String,
        "temperature": pl.Float64,
        "seed": pl.Int64,
        "response_tokens": pl.Int32,
        "finish_reason": pl.String,
        "model": pl.String,
        "revision": pl.String,
        "reward": pl.Float64,
    }
)
PAIRS = pl.Schema(
    {
        "pair_id": pl.String,
        "row_id": pl.String,
        "group": pl.String,
        "split": pl.String,  # "train" or "validation"
        "source": pl.String,
        "history": pl.List(TURN),  # turns before the instruction, the same for both responses
        "instruction": pl.String,
        "chosen": pl.String,
        "rejected": pl.String,
        "chosen_reward": pl.Float64,
        "rejected_reward": pl.Float64,
        "margin": pl.Float64,
    }
)
REJECTED_PAIRS = pl.Schema({**PAIRS, "reason": pl.String, "detail": pl.String})
REFERENCE_LOGPROBS = pl.Schema({"pair_id": pl.String, "chosen_logprob": pl.Float64, "rejected_logprob": pl.Float64})
ITEM_SCORES = pl.Schema(
    {
        "model": pl.String,  # "base", or the adapter asset's name
        "fingerprint": pl.String,  # of the adapter; the revision for the base
        "suite": pl.String,
        "split": pl.String,
        "item_id": pl.String,
        "cluster": pl.String,
        "metric": pl.String,
        "score": pl.Float64,  # 0..1; null where the metric does not apply
        "response": pl.String,
        "finish_reason": pl.String,  # "stop", "length", or one of UNANSWERABLE; null for rated choices
    }
)

CONTEXT_EXCEEDED, TEMPLATE_REFUSED = "context_exceeded", "template_refused"
UNANSWERABLE = (CONTEXT_EXCEEDED, TEMPLATE_REFUSED)
"""Values of `finish_reason` for an item that a model cannot take: its score is null, and it is counted as left out."""


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
    method: Literal["lora", "prompt_tuning", "dpo", "on_policy_dpo", "rejection_sampling"]
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
    found: str
    wanted: str


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
class Verdict:
    """What one check said about one version of an asset; whatever was never said is "missing"."""

    asset: str  # with its partition: "raw_instructions[2026-W47]"
    data_version: str
    check: str
    status: Literal["passed", "warned", "failed", "missing"]
    detail: str = ""


@dataclass(frozen=True)
class JudgedDecision:
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


@dataclass(frozen=True)
class Tier:
    """A row of the hardware table; see resources/hardware.py."""

    device: Literal["cpu", "cuda"]
    memory_gb: float
    dtype: Literal["float32", "float16", "bfloat16"]
    quantisation: Literal["none", "int8", "nf4"]
    attention: Literal["sdpa", "flash_attention_2"]
    engine: Literal["transformers", "vllm"]
    teacher: str
    base: str
    reward: str
    batch_size: int
    accumulation: int
    samples: int
    min_rows: int
    usd_per_hour: float
    capability: tuple[int, int] = (0, 0)  # CUDA compute capability wanted
    bandwidth_gb_s: float = 0.0  # of the device's memory, 1e9 bytes a second; 0: measured where it is needed
    grouping: Literal["length", "packing"] = "length"
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # spec -> field -> value, over the model's
    suites: tuple[str, ...] = ()  # empty: those of the base's size
    tested: str = ""  # where and when it ran; empty: nobody ran it


def to_json(record: object) -> str:
    """One record as canonical JSON: sorted keys, so that equal records are equal text."""
    if not is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"a record is a dataclass instance, not {type(record).__name__}")
    return json.dumps(asdict(record), sort_keys=True, ensure_ascii=False, indent=1)


def from_json(kind: type[R], text: str) -> R:
    """The record of type `kind` that `to_json` wrote; ValueError names fields that are missing or unknown."""
    return _from_raw(kind, json.loads(text))


def fingerprint(*parts: object) -> str:
    """Sixteen hex digits that change whenever a part does; parts are JSON values, mappings or dataclasses."""
    plain = [asdict(p) if is_dataclass(p) and not isinstance(p, type) else p for p in parts]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _from_raw(kind: type[R], raw: Any) -> R:  # noqa: ANN401 - what JSON holds
    if not isinstance(raw, dict):
        raise ValueError(f"{kind.__name__}: expected a JSON object, got {type(raw).__name__}")
    known = {f.name for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(raw) - known):
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    hints = get_type_hints(kind)
    try:
        return kind(**{name: _value(hints[name], value) for name, value in raw.items()})
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def _value(hint: Any, value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    """A field's value, in which records are records again: one, one or None, or a list of them."""
    origin = get_origin(hint)
    parts = (hint, *(get_args(hint) if origin in (list, Union, UnionType) else ()))
    inner = next((part for part in parts if isinstance(part, type) and is_dataclass(part)), None)
    if inner is None or value is None:
        return value
    return [_from_raw(inner, entry) for entry in value] if origin is list else _from_raw(inner, value)
