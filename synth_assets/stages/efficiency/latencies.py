"""How long one variant takes to answer one prompt at a time, with nothing else at work."""

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
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.storage.blocks import Block, Progress, compute_blocks, read_blocks

PERCENTILES = {"p50_s": 50, "p95_s": 95, "p99_s": 99}
LATENCIES = pl.Schema(
    {
        "variant": pl.String,
        "cell": pl.String,
        "weights": pl.String,  # of the adapter whose answers were timed
        "engine": pl.String,
        "prompts": pl.Int64,
        "new_tokens": pl.Int64,
        "p50_s": pl.Float64,  # of whole answers
        "p95_s": pl.Float64,
        "p99_s": pl.Float64,
        "tokens_per_s": pl.Float64,
        "other_cores": pl.Float64,  # cores that other processes kept busy meanwhile, on average
    }
)


@dataclass(frozen=True)
class LatencySpec:
    """How answers are timed: greedily, one prompt in a forward pass.

    Attributes:
        prompts: at most so many of the test rows, by hash.
        warm_up: prompts that are answered before the clock runs.
        max_tokens: of an answer.
    """

    prompts: int = setting(100, "Most prompts that are timed, selected by hash.")
    warm_up: int = setting(3, "Prompts answered before timing starts.")
    max_tokens: int = setting(128, "Longest answer in tokens.")

    def __post_init__(self) -> None:
        """Refuse what measures nothing; ValueError names the field."""
        for name, lowest in (("prompts", 1), ("warm_up", 0), ("max_tokens", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, not {getattr(self, name)}")


@dataclass(frozen=True)
class Timed:
    """A variant to be timed; `weights` is the hash of what makes the model and its arithmetic."""

    variant: str
    cell: str
    weights: str
    engine: str
    generator: Callable[[], TextGenerator]


def latencies(
    timed: Sequence[Timed], prompts: Sequence[str], spec: LatencySpec, *, folder: Path, progress: Progress, again: str
) -> pl.DataFrame:
    """LATENCIES, one variant after the other; those that were timed before on this machine are read.

    Args:
        timed: the variants.
        prompts: what a user says.
        spec: how they are timed.
        folder: where the numbers are kept.
        progress: receives a line for each variant.
        again: another text asks for new measurements.
    """
    place = [platform.node(), platform.processor(), os.cpu_count()]
    blocks = [
        Block(fingerprint("latency", one.weights, one.engine, list(prompts), spec, place, again), 1, one)
        for one in timed
    ]
    paths = compute_blocks(
        blocks, lambda one: time_variant(one, prompts, spec), folder, what="latencies", progress=progress
    )
    found = read_blocks(paths, LATENCIES)
    names = pl.DataFrame({"variant": [one.variant for one in timed], "cell": [one.cell for one in timed]})
    return pl.concat([names, found.drop("variant", "cell")], how="horizontal").select(LATENCIES.names())


def time_variant(one: Timed, prompts: Sequence[str], spec: LatencySpec) -> pl.DataFrame:
    """One row of LATENCIES."""
    generator = one.generator()
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
        "variant": one.variant,
        "cell": one.cell,
        "weights": one.weights,
        "engine": one.engine,
        "prompts": len(prompts),
        "new_tokens": tokens,
        **percentiles(seconds),
        "tokens_per_s": tokens / sum(seconds),
        "other_cores": load.cores(),
    }
    return pl.DataFrame([row], schema=LATENCIES)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """PERCENTILES of the times, between neighbours linearly (type 7 of Hyndman and Fan 1996)."""
    return {name: float(np.percentile(np.asarray(seconds), share)) for name, share in PERCENTILES.items()}


class OtherLoad:
    """How many cores all other processes of this machine keep busy, on average since it was made."""

    def __init__(self) -> None:
        """Start measuring."""
        self.started, self.busy, self.own = time.monotonic(), _busy_s(), time.process_time()

    def cores(self) -> float:
        """At least 0; the system counts in hundredths of a second."""
        wall = time.monotonic() - self.started
        others = (_busy_s() - self.busy) - (time.process_time() - self.own)
        return max(others, 0.0) / max(wall, 1e-9)


def _busy_s() -> float:
    """Seconds in which the machine's cores were at work, since it started."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "system", "irq", "softirq"))  # `user` includes guests
