"""Compare on-policy DPO with its control, rejection sampling and off-policy DPO over several seeds.

`python perf/on_policy.py HOME [SEED ...]` continues the LoRA adapter of a SYNTH_HOME that `synth run` has filled, with
the settings of the cpu tier, and evaluates on all test items. A seed determines the responses of the policy and the
order of each training. Five adapters per seed: `on-policy DPO` and its `control` on the pairs of the on-policy round,
`best of 8` (rejection sampling on these pairs), and the pipeline's `DPO` and `rejection sampling` on the teacher's
responses. Everything is stored in HOME, so a rerun resumes.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import polars as pl

from resources.deployment import set_up_process
from resources.hardware import Hardware
from resources.inference import Inference
from resources.reward import RewardModels
from resources.storage import SynthHome
from synth_assets.evals.scoring import EvaluatedModel, EvaluationSpec, score_model
from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import find_suites
from synth_assets.schemas.records import AdapterRecord
from synth_assets.schemas.serialization import from_json
from synth_assets.schemas.tables import PAIRS
from synth_assets.stages.preference.candidates import (
    OnPolicyCandidateSpec,
    instructions_to_sample,
    sample_candidates,
    score_candidates,
)
from synth_assets.stages.preference.pairs import PairSpec, build_pairs, length_bias
from synth_assets.stats.paired import mcnemar, paired_bootstrap
from synth_assets.training.dpo import control_spec
from synth_assets.training.engine import LoadedBase
from synth_assets.training.plan import TrainingContext, TrainingRequest
from synth_assets.training.specs import DpoSpec, OnPolicyDpoSpec, OptimizationSpec, RejectionSamplingSpec
from synth_assets.training.train_or_load import reference_logprobs_of, train_or_load_adapter

SEEDS = (42, 1, 2)
ON_POLICY, CONTROL, BEST, OFF_POLICY, REJECTION = "on-policy DPO", "control", "best of 8", "DPO", "rejection sampling"
METRIC = "strict"
S = TypeVar("S", bound=OptimizationSpec)
DECODINGS = {"greedy": 0.0, "drawn at T 1": 1.0}


def quiet(_: str) -> None:
    """Ignore a progress line."""


class Study:
    """The trainings and evaluations in a filled home."""

    def __init__(self, folder: Path) -> None:
        """Work under `folder` on the cpu tier."""
        self.home = SynthHome(folder=str(folder))
        self.hardware = Hardware(tier="cpu")
        self.inference = Inference(hardware=self.hardware)
        self.base = self.inference.resolve("base")
        self.lora = from_json(AdapterRecord, (folder / "tables" / "lora_adapter.json").read_text("utf-8"))
        self.items = item_table(find_suites(("world_instructions",))).filter(split="test")
        self.context = TrainingContext(
            folder, self.home.adapters(), self.home.shards("adapters"), self.hardware.limits(), quiet
        )

    def table(self, name: str) -> pl.LazyFrame:
        """Scan a table of the home."""
        return pl.scan_parquet(self.home.tables() / f"{name}.parquet", glob=False)

    def load(self) -> LoadedBase:
        """Load the base model for training."""
        return self.inference.load_base(self.base)

    def adapters(self, seed: int) -> dict[str, AdapterRecord]:
        """Train the five adapters of a seed, or load them from the home."""
        on_policy, off_policy = self._on_policy_pairs(seed), self.table("preference_pairs").collect()

        def seeded(spec: S) -> S:
            return replace(self.hardware.spec(spec), seed=seed, scored_rows=0)

        dpo, best = seeded(OnPolicyDpoSpec()), seeded(RejectionSamplingSpec())
        on_policy_reference, off_policy_reference = (
            reference_logprobs_of(pairs, self.lora, self.base, self.context, self.load)
            for pairs in (on_policy, off_policy)
        )
        requests = {
            ON_POLICY: TrainingRequest(
                "on_policy_dpo_adapter", dpo, self.base, on_policy, self.lora, on_policy_reference
            ),
            CONTROL: TrainingRequest(
                "control", control_spec(dpo), self.base, on_policy, self.lora, on_policy_reference, role="control"
            ),
            BEST: TrainingRequest("best_of_8", best, self.base, on_policy, self.lora),
            OFF_POLICY: TrainingRequest(
                "dpo_adapter", seeded(DpoSpec()), self.base, off_policy, self.lora, off_policy_reference
            ),
            REJECTION: TrainingRequest("rejection_sampling_adapter", best, self.base, off_policy, self.lora),
        }
        return {name: train_or_load_adapter(request, self.context, self.load)[0] for name, request in requests.items()}

    def _on_policy_pairs(self, seed: int) -> pl.DataFrame:
        """Build pairs as the assets do: best and worst of four responses of the policy and four of the teacher."""
        spec, folder = replace(self.hardware.spec(OnPolicyCandidateSpec()), seed=seed), self.home.shards("preference")
        rows = instructions_to_sample(self.table("sft_dataset"), spec)
        policy = self.inference.generator(self.base, self.context.root / self.lora.path)
        sampled = sample_candidates(rows, policy, spec, folder, quiet)
        reward = RewardModels(hardware=self.hardware).load(self.inference.resolve("reward"))
        scored = score_candidates(sampled.paths, reward, folder, quiet)
        candidates = pl.concat([scored, self.table("response_candidates")]).collect()
        pairs = build_pairs(candidates, PAIRS.to_frame(), self.hardware.spec(PairSpec())).pairs
        bias = ", ".join(f"{name} {value:.2f}" for name, value in length_bias(pairs).items())
        print(f"seed {seed}: {pairs.height} pairs, {bias}; mean reward of the policy's responses "
              f"{scored.select(pl.col('reward').mean()).collect().item():.3f}", flush=True)  # fmt: skip
        return pairs

    def scores(self, adapter: AdapterRecord, temperature: float) -> pl.DataFrame:
        """Return (item_id, cluster, score) of an adapter; cached by its files and the decoding."""
        folder = self.context.root / adapter.path
        engine = self.inference.engine(folder)
        model = EvaluatedModel(
            adapter.name,
            adapter.fingerprint,
            adapter.fingerprint,
            engine,
            lambda: self.inference.generator(self.base, folder),
            lambda: self.inference.load_adapted(self.base, folder),
        )
        spec = replace(self.hardware.spec(EvaluationSpec()), temperature=temperature)
        scores = score_model(model, self.items, spec, folder=self.home.shards("evaluation"), progress=quiet)
        return scores.filter(metric=METRIC).select("item_id", "cluster", "score").sort("item_id")


def report(scores: Mapping[tuple[str, int], pl.DataFrame], decoding: str) -> None:
    """Print the scores of each adapter by seed, then paired tests of on-policy DPO against each other adapter."""
    names = list(dict.fromkeys(name for name, _ in scores))
    seeds = list(dict.fromkeys(seed for _, seed in scores))
    n = scores[names[0], seeds[0]].height
    print(f"\n{decoding}, {METRIC}, n = {n}, seeds {', '.join(map(str, seeds))}")
    for name in names:
        means = [fmean(scores[name, seed]["score"]) for seed in seeds]
        print(f"  {name:20} {fmean(means):.3f}  ({', '.join(f'{value:.3f}' for value in means)})")
    for other in names[1:]:
        clusters = scores[ON_POLICY, seeds[0]]["cluster"].to_list()
        on_policy, baseline = (
            [fmean(item) for item in zip(*(scores[x, s]["score"] for s in seeds), strict=True)]
            for x in (ON_POLICY, other)
        )
        bootstrap = paired_bootstrap(baseline, on_policy, clusters)
        p_values = [
            mcnemar([*(scores[other, s]["score"] == 1)], [*(scores[ON_POLICY, s]["score"] == 1)]).p_value for s in seeds
        ]
        line = f"  {ON_POLICY} over {other:20} {bootstrap.difference:+.3f}"
        line += f", bootstrap by cluster p = {bootstrap.p_value:.4f}"
        line += f"; McNemar by seed p = {', '.join(f'{p:.3f}' for p in p_values)}"
        print(line, flush=True)


def main() -> None:
    """Train, evaluate and compare the adapters."""
    home = Path(sys.argv[1]).resolve()
    set_up_process(home, "cpu")
    study = Study(home)
    seeds = [int(seed) for seed in sys.argv[2:]] or list(SEEDS)
    adapters = {(name, seed): record for seed in seeds for name, record in study.adapters(seed).items()}
    for decoding, temperature in DECODINGS.items():
        report({key: study.scores(record, temperature) for key, record in adapters.items()}, decoding)


if __name__ == "__main__":
    main()
