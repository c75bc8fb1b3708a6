"""Measure the latency of variants, one prompt at a time."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from synth_assets.llm.protocols import Sampling, TextGenerator
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.study_runs import add_numbers
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.storage.blocks import Block, Progress, compute_blocks, read_blocks

PERCENTILES = {"p50_s": 50, "p95_s": 95, "p99_s": 99}
LATENCIES = pl.Schema(
    {
        "variant": pl.String,
        "cell": pl.String,
        "weights": pl.String,  # hash of the timed model's weights
        "engine": pl.String,
        "prompts": pl.Int64,
        "new_tokens": pl.Int64,
        "p50_s": pl.Float64,  # of complete answers
        "p95_s": pl.Float64,
        "p99_s": pl.Float64,
        "tokens_per_s": pl.Float64,
        "other_cores": pl.Float64,  # mean number of cores used by other processes
    }
)


@dataclass(frozen=True)
class LatencySpec:
    """Settings of the timing: greedy decoding, batch size 1.

    Attributes:
        prompts: maximum number of test rows, selected by hash.
        warm_up: prompts answered before timing starts.
        max_tokens: limit of an answer.
    """

    prompts: int = setting(100, "Most prompts that are timed, selected by hash.")
    warm_up: int = setting(3, "Prompts answered before timing starts.")
    max_tokens: int = setting(128, "Longest answer in tokens.")

    def __post_init__(self) -> None:
        """Raise ValueError with the name of an invalid field."""
        for name, lowest in (("prompts", 1), ("warm_up", 0), ("max_tokens", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")


LATENCIES_CODE_VERSION = fingerprint(LatencySpec())


@dataclass(frozen=True)
class TimedVariant:
    """A variant to time; `weights` is the hash of its weights and arithmetic."""

    variant: str
    cell: str
    weights: str
    engine: str
    generator: Callable[[], TextGenerator]


def latencies(
    timed: Sequence[TimedVariant],
    prompts: Sequence[str],
    spec: LatencySpec,
    *,
    folder: Path,
    progress: Progress,
    again: str,
) -> pl.DataFrame:
    """Return LATENCIES, measured one variant at a time; results stored for this machine are reused.

    Args:
        timed: the variants.
        prompts: user messages.
        spec: settings of the timing.
        folder: folder of the stored results.
        progress: receives a line for each variant.
        again: part of the key of stored results; a new text repeats the measurements.
    """
    machine = [platform.node(), platform.processor(), os.cpu_count()]
    blocks = [
        Block(fingerprint("latency", variant.weights, variant.engine, list(prompts), spec, machine, again), 1, variant)
        for variant in timed
    ]
    paths = compute_blocks(
        blocks, lambda variant: time_variant(variant, prompts, spec), folder, what="latencies", progress=progress
    )
    measured = read_blocks(paths, LATENCIES)
    names = pl.DataFrame(
        {"variant": [variant.variant for variant in timed], "cell": [variant.cell for variant in timed]}
    )
    return pl.concat([names, measured.drop("variant", "cell")], how="horizontal").select(LATENCIES.names())


def log_latencies(tracker: MlflowTracker, run_ids: Sequence[str], timed: pl.DataFrame) -> None:
    """Add LATENCIES to the MLflow runs of the timed variants, in the same order."""
    for run_id, row in zip(run_ids, timed.iter_rows(named=True), strict=True):
        numbers = {f"answer_{name}": row[name] for name in PERCENTILES}
        add_numbers(tracker, run_id, numbers | {"answer_tokens_per_s": row["tokens_per_s"]})


def time_variant(variant: TimedVariant, prompts: Sequence[str], spec: LatencySpec) -> pl.DataFrame:
    """Measure one row of LATENCIES."""
    generator = variant.generator()
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=spec.max_tokens)
    encoded = [generator.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]
    for prompt in encoded[: spec.warm_up]:
        generator.generate([prompt], [0], sampling)
    seconds, tokens = [], 0
    load = OtherLoad()
    for prompt in encoded:
        started = time.perf_counter()
        (answer,) = generator.generate([prompt], [0], sampling)
        seconds.append(time.perf_counter() - started)
        tokens += answer.completion_tokens
    row = {
        "variant": variant.variant,
        "cell": variant.cell,
        "weights": variant.weights,
        "engine": variant.engine,
        "prompts": len(prompts),
        "new_tokens": tokens,
        **percentiles(seconds),
        "tokens_per_s": tokens / sum(seconds),
        "other_cores": load.cores(),
    }
    return pl.DataFrame([row], schema=LATENCIES)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return PERCENTILES of the times, linearly interpolated (type 7 of Hyndman and Fan 1996)."""
    return {name: float(np.percentile(np.asarray(seconds), share)) for name, share in PERCENTILES.items()}


class OtherLoad:
    """Mean number of cores used by other processes since the object was created."""

    def __init__(self) -> None:
        """Start measuring."""
        self.started, self.busy, self.own = time.monotonic(), _busy_s(), time.process_time()

    def cores(self) -> float:
        """Return the mean number of cores, at least 0; the system counts in hundredths of a second."""
        wall = time.monotonic() - self.started
        others = (_busy_s() - self.busy) - (time.process_time() - self.own)
        return max(others, 0.0) / max(wall, 1e-9)


def _busy_s() -> float:
    """Return the busy seconds of all cores since the machine started."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "system", "irq", "softirq"))  # `user` includes guests
