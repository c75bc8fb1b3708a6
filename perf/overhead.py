"""What Dagster costs: the pipeline's own functions in a plain loop, under Dagster in one process, and in several.

`python perf/overhead.py [SAMPLES]`, on an idle machine. The plain loop calls what the assets call, one after another,
and keeps every table in memory; Dagster's side also stores, hashes, registers in MLflow and writes the event log.
Checks are work of their own and run in the last line only, which is `synth run` as it is.
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
from synth_assets.stages.filtering.features import TokenLimits
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec, split
from synth_assets.stages.generation.magpie import generate
from synth_assets.stages.generation.partitions import BATCHES_NAME
from synth_assets.stages.generation.spec import MagpieSpec
from synth_assets.stages.preference.candidates import (
    CandidateSpec,
    instructions_to_sample,
    sample_candidates,
    score_candidates,
)
from synth_assets.stages.preference.pairs import PairSpec, build_pairs
from synth_assets.training.dpo import control_spec
from synth_assets.training.plan import TrainingContext, TrainingRequest
from synth_assets.training.specs import DpoSpec, LoraSpec, PromptTuningSpec, RejectionSamplingSpec
from synth_assets.training.train_or_load import reference_logprobs_of, train_or_load_adapter

BATCH = "first"
SAMPLES = 1_536  # the demo
WARM_UP_SAMPLES = 192


def quiet(line: str) -> None:
    """Take a progress line and do nothing."""


class PlainLoop:
    """The pipeline without Dagster: every stage's functions, called in order."""

    def __init__(self, home: SynthHome, samples: int) -> None:
        """Work under `home` on the cpu tier."""
        self.home, self.samples = home, samples
        self.hardware = Hardware(tier="cpu")
        self.inference = Inference(hardware=self.hardware)
        self.items = item_table(find_suites(self.hardware.limits().suites))

    def run(self) -> None:
        """Everything from the first instruction to the last score."""
        teacher, base, reward = (self.inference.resolve(role) for role in ("teacher", "base", "reward"))
        rows = self._dataset(teacher, base)
        pairs = self._pairs(rows, teacher, reward)
        self._scores(base, self._adapters(rows, pairs, base))

    def _dataset(self, teacher: ModelRecord, base: ModelRecord) -> pl.DataFrame:
        spec = replace(self.hardware.spec(MagpieSpec()), samples=self.samples)
        generator = self.inference.generator(teacher)
        made = generate(generator, spec, BATCH, teacher.family, self.home.shards("generation"), quiet)
        reader = TokenLimits(self.inference.count_tokens(base), base.context_tokens)
        with tempfile.TemporaryDirectory() as scratch:
            verdicts = apply_filters(made.rows, self.items, self.hardware.spec(FilterSpec()), reader, Path(scratch))
            return split(verdicts.kept, self.hardware.spec(SplitSpec())).collect()

    def _pairs(self, rows: pl.DataFrame, teacher: ModelRecord, reward: ModelRecord) -> pl.DataFrame:
        spec, folder = self.hardware.spec(CandidateSpec()), self.home.shards("preference")
        asked = instructions_to_sample(rows.lazy(), spec)
        sampled = sample_candidates(asked, self.inference.generator(teacher), spec, folder, quiet)
        scorer = RewardModels(hardware=self.hardware).load(reward)
        candidates = score_candidates(sampled.paths, scorer, folder, quiet).collect()
        return build_pairs(candidates, PAIRS.to_frame(), self.hardware.spec(PairSpec())).pairs

    def _adapters(self, rows: pl.DataFrame, pairs: pl.DataFrame, base: ModelRecord) -> list[AdapterRecord]:
        shop = TrainingContext(
            self.home.root(), self.home.adapters(), self.home.shards("adapters"), self.hardware.limits(), quiet
        )

        def load() -> Any:  # noqa: ANN401 - a model and its tokenizer, whose types only the model libraries have
            return self.inference.load_base(base)

        specs = (LoraSpec(), PromptTuningSpec(), DpoSpec(), RejectionSamplingSpec())
        lora_spec, prompt_spec, dpo_spec, best_spec = (self.hardware.spec(spec) for spec in specs)
        lora, _ = train_or_load_adapter(TrainingRequest("lora_adapter", lora_spec, base, rows), shop, load)
        reference = reference_logprobs_of(pairs, lora, base, shop, load)
        orders = [
            TrainingRequest("prompt_tuning_adapter", prompt_spec, base, rows),
            TrainingRequest("dpo_adapter", dpo_spec, base, pairs, lora, reference),
            TrainingRequest(
                "dpo_control_adapter", control_spec(dpo_spec), base, pairs, lora, reference, role="control"
            ),
            TrainingRequest("rejection_sampling_adapter", best_spec, base, pairs, lora),
        ]
        return [lora, *(train_or_load_adapter(order, shop, load)[0] for order in orders)]

    def _scores(self, base: ModelRecord, adapters: Sequence[AdapterRecord]) -> None:
        for adapter in (None, *adapters):
            folder = self.home.root() / adapter.path if adapter else None

            def pair(folder: Path | None = folder) -> Any:  # noqa: ANN401 - as above
                return self.inference.load_adapted(base, folder) if folder else self.inference.load_base(base)

            name = adapter.name if adapter else "base"
            maker = lambda folder=folder: self.inference.generator(base, folder)  # noqa: E731
            subject = EvaluatedModel(name, name, name, self.inference.engine(folder), maker, pair)
            spec = self.hardware.spec(EvaluationSpec())
            score_model(subject, self.items, spec, folder=self.home.shards("evaluation"), progress=quiet)


def one_process() -> dg.JobDefinition:
    """The job `pipeline` without checks, all steps in this process."""
    selection = dg.AssetSelection.all().without_checks()
    definitions = build_definitions(deployment_resources(), dg.in_process_executor)
    job = dg.define_asset_job("pipeline_without_checks", selection=selection)
    return dg.Definitions.merge(definitions, dg.Definitions(jobs=[job])).resolve_job_def(job.name)


def several_processes() -> dg.JobDefinition:
    """The job `pipeline` as `synth run` starts it."""
    return build_definitions(deployment_resources(), executor_for("cpu")).resolve_job_def("pipeline")


def under_dagster(make_job: Callable[[], dg.JobDefinition], samples: int) -> Callable[[Path], None]:
    """A run of the job with a home of its own."""

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


def timed(what: str, run: Callable[[Path], None]) -> float:
    """Wall seconds of one run in a fresh home."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(SYNTH_HOME=folder, DAGSTER_HOME=f"{folder}/dagster")
        started = time.perf_counter()
        run(Path(folder))
        seconds = time.perf_counter() - started
    print(f"{what:44} {seconds:7.1f} s", flush=True)
    return seconds


def warm_up(home: Path) -> None:
    """Load every library that either side uses."""
    MlflowTracking(home=SynthHome(folder=str(home))).initialise()
    few = PlainLoop(SynthHome(folder=str(home)), WARM_UP_SAMPLES)
    few.run()


def main() -> None:
    """Time the three, model libraries loaded beforehand, and print the ratios."""
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
