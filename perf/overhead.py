"""Measure the overhead of Dagster: the pipeline as a plain loop, under Dagster in one process, and in several.

Run `python perf/overhead.py [SAMPLES]` on an idle machine. The plain loop calls the same functions as the assets, one
after another, and keeps every table in memory. The runs under Dagster also store and hash tables, register models in
MLflow and write the event log. Only the last measurement, which equals `synth run`, includes the checks.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from resources.deployment import set_up_process, write_instance_settings
from resources.hardware import Hardware
from resources.inference import Inference
from resources.partitions import BATCHES_NAME
from resources.reward import RewardModels
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.definitions import build_definitions, deployment_resources
from synth_assets.evals.scoring import EvaluatedModel, EvaluationSpec, score_model
from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import find_suites
from synth_assets.orchestration.jobs import executor_for
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.tables import PAIRS
from synth_assets.stages.filtering.apply import apply_filters
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec, split
from synth_assets.stages.generation.magpie import generate
from synth_assets.stages.generation.spec import MagpieSpec
from synth_assets.stages.preference.candidates import (
    CandidateSpec,
    instructions_to_sample,
    sample_candidates,
    score_candidates,
)
from synth_assets.stages.preference.pairs import PairSpec, build_pairs
from synth_assets.text.token_limits import TokenLimits
from synth_assets.training.dpo import control_spec
from synth_assets.training.plan import TrainingContext, TrainingRequest
from synth_assets.training.specs import DpoSpec, LoraSpec, PromptTuningSpec, RejectionSamplingSpec
from synth_assets.training.train_or_load import reference_logprobs_of, train_or_load_adapter

BATCH = "first"
SAMPLES = 1_536  # as in `make demo`
WARM_UP_SAMPLES = 192


def quiet(line: str) -> None:
    """Ignore a progress line."""


class PlainLoop:
    """The pipeline without Dagster: the functions of every stage, called in order."""

    def __init__(self, home: SynthHome, samples: int) -> None:
        """Work under `home` on the cpu tier."""
        self.home, self.samples = home, samples
        self.hardware = Hardware(tier="cpu")
        self.inference = Inference(hardware=self.hardware)
        self.items = item_table(find_suites(self.hardware.limits().suites))

    def run(self) -> None:
        """Run the pipeline from the first instruction to the last score."""
        teacher, base, reward = (self.inference.resolve(role) for role in ("teacher", "base", "reward"))
        rows = self._dataset(teacher, base)
        pairs = self._pairs(rows, teacher, reward)
        self._scores(base, self._adapters(rows, pairs, base))

    def _dataset(self, teacher: ModelRecord, base: ModelRecord) -> pl.DataFrame:
        spec = replace(self.hardware.spec(MagpieSpec()), samples=self.samples)
        generator = self.inference.generator(teacher)
        generated = generate(generator, spec, BATCH, teacher.family, self.home.shards("generation"), quiet)
        limits = TokenLimits(self.inference.count_tokens(base), base.context_tokens)
        with tempfile.TemporaryDirectory() as scratch:
            result = apply_filters(generated.rows, self.items, self.hardware.spec(FilterSpec()), limits, Path(scratch))
            return split(result.kept, self.hardware.spec(SplitSpec())).collect()

    def _pairs(self, rows: pl.DataFrame, teacher: ModelRecord, reward: ModelRecord) -> pl.DataFrame:
        spec, folder = self.hardware.spec(CandidateSpec()), self.home.shards("preference")
        instructions = instructions_to_sample(rows.lazy(), spec)
        sampled = sample_candidates(instructions, self.inference.generator(teacher), spec, folder, quiet)
        scorer = RewardModels(hardware=self.hardware).load(reward)
        candidates = score_candidates(sampled.paths, scorer, folder, quiet).collect()
        return build_pairs(candidates, PAIRS.to_frame(), self.hardware.spec(PairSpec())).pairs

    def _adapters(self, rows: pl.DataFrame, pairs: pl.DataFrame, base: ModelRecord) -> list[AdapterRecord]:
        context = TrainingContext(
            self.home.root(), self.home.adapters(), self.home.shards("adapters"), self.hardware.limits(), quiet
        )

        def load() -> Any:  # noqa: ANN401 - a model and its tokenizer
            return self.inference.load_base(base)

        specs = (LoraSpec(), PromptTuningSpec(), DpoSpec(), RejectionSamplingSpec())
        lora_spec, prompt_spec, dpo_spec, best_spec = (self.hardware.spec(spec) for spec in specs)
        lora, _ = train_or_load_adapter(TrainingRequest("lora_adapter", lora_spec, base, rows), context, load)
        reference = reference_logprobs_of(pairs, lora, base, context, load)
        requests = [
            TrainingRequest("prompt_tuning_adapter", prompt_spec, base, rows),
            TrainingRequest("dpo_adapter", dpo_spec, base, pairs, lora, reference),
            TrainingRequest(
                "dpo_control_adapter", control_spec(dpo_spec), base, pairs, lora, reference, role="control"
            ),
            TrainingRequest("rejection_sampling_adapter", best_spec, base, pairs, lora),
        ]
        return [lora, *(train_or_load_adapter(request, context, load)[0] for request in requests)]

    def _scores(self, base: ModelRecord, adapters: Sequence[AdapterRecord]) -> None:
        for adapter in (None, *adapters):
            folder = self.home.root() / adapter.path if adapter else None

            def pair(folder: Path | None = folder) -> Any:  # noqa: ANN401 - as above
                return self.inference.load_adapted(base, folder) if folder else self.inference.load_base(base)

            name = adapter.name if adapter else "base"
            load_generator = lambda folder=folder: self.inference.generator(base, folder)  # noqa: E731
            model = EvaluatedModel(name, name, name, self.inference.engine(folder), load_generator, pair)
            spec = self.hardware.spec(EvaluationSpec())
            score_model(model, self.items, spec, folder=self.home.shards("evaluation"), progress=quiet)


def one_process() -> dg.JobDefinition:
    """Return the job `pipeline` without checks, with all steps in this process."""
    selection = dg.AssetSelection.all().without_checks()
    definitions = build_definitions(deployment_resources(), dg.in_process_executor)
    job = dg.define_asset_job("pipeline_without_checks", selection=selection)
    return dg.Definitions.merge(definitions, dg.Definitions(jobs=[job])).resolve_job_def(job.name)


def several_processes() -> dg.JobDefinition:
    """Return the job `pipeline` as `synth run` starts it."""
    return build_definitions(deployment_resources(), executor_for("cpu")).resolve_job_def("pipeline")


def under_dagster(make_job: Callable[[], dg.JobDefinition], samples: int) -> Callable[[Path], None]:
    """Return a function that runs the job in a given home."""

    def run(home: Path) -> None:
        write_instance_settings(home)
        with dg.DagsterInstance.get() as instance:
            instance.add_dynamic_partitions(BATCHES_NAME, [BATCH])
            config = {
                "ops": {"raw_instructions": {"config": {"samples": samples}}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            }
            tags = {"dagster/partition": BATCH}
            with dg.execute_job(dg.reconstructable(make_job), instance, config, tags, raise_on_error=True):
                pass

    return run


def timed(label: str, run: Callable[[Path], None]) -> float:
    """Return the wall seconds of a run in a new home."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(SYNTH_HOME=folder, DAGSTER_HOME=f"{folder}/dagster")
        started = time.perf_counter()
        run(Path(folder))
        seconds = time.perf_counter() - started
    print(f"{label:44} {seconds:7.1f} s", flush=True)
    return seconds


def warm_up(home: Path) -> None:
    """Import every library before the measurements."""
    MlflowTracking(home=SynthHome(folder=str(home))).initialise()
    PlainLoop(SynthHome(folder=str(home)), WARM_UP_SAMPLES).run()


def main() -> None:
    """Time the three variants after a warm-up, and print the ratios."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    set_up_process(Path(tempfile.gettempdir()), "cpu")
    timed("warm-up: libraries, few rows", warm_up)
    plain = timed("plain loop", lambda home: PlainLoop(SynthHome(folder=str(home)), samples).run())
    inside = timed("Dagster, one process, without checks", under_dagster(one_process, samples))
    print(f"overhead of Dagster in one process: {inside / plain - 1:.1%}")
    several = timed("Dagster, two steps at once, with checks", under_dagster(several_processes, samples))
    print(f"synth run against the plain loop: {several / plain:.2f} times")


if __name__ == "__main__":
    main()
