"""DPO on the policy's own responses beside its control and rejection sampling, over seeds.

`python perf/on_policy.py HOME [SEED ...]`: continues the LoRA adapter of a SYNTH_HOME that `synth run` has filled, by
the cpu tier's settings, and asks all test items. A seed draws the policy's responses and orders each
training. Five adapters a seed: `on-policy DPO` and its `control` on the pairs of the on-policy round, `best of 8`
(rejection sampling on those pairs), and as the pipeline has them `DPO` and `rejection sampling` on the teacher's
responses. All of it is kept in HOME: a rerun goes on.
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
OWN, CONTROL, BEST, TEACHERS, REJECTION = "on-policy DPO", "control", "best of 8", "DPO", "rejection sampling"
METRIC = "strict"
S = TypeVar("S", bound=OptimizationSpec)
DECODINGS = {"greedy": 0.0, "drawn at T 1": 1.0}


def quiet(_: str) -> None:
    """Say nothing."""


class Study:
    """A filled home and what is trained in it."""

    def __init__(self, folder: Path) -> None:
        """Work under `folder` on the cpu tier."""
        self.home = SynthHome(folder=str(folder))
        self.hardware = Hardware(tier="cpu")
        self.inference = Inference(hardware=self.hardware)
        self.base = self.inference.resolve("base")
        self.lora = from_json(AdapterRecord, (folder / "tables" / "lora_adapter.json").read_text("utf-8"))
        self.items = item_table(find_suites(("world_instructions",))).filter(split="test")
        self.shop = TrainingContext(
            folder, self.home.adapters(), self.home.shards("adapters"), self.hardware.limits(), quiet
        )

    def table(self, name: str) -> pl.LazyFrame:
        """A table of the home."""
        return pl.scan_parquet(self.home.tables() / f"{name}.parquet", glob=False)

    def load(self) -> LoadedBase:
        """The base, to be trained."""
        return self.inference.load_base(self.base)

    def adapters(self, seed: int) -> dict[str, AdapterRecord]:
        """The five of one seed."""
        own, teachers = self._own_pairs(seed), self.table("preference_pairs").collect()

        def seeded(spec: S) -> S:
            return replace(self.hardware.spec(spec), seed=seed, scored_rows=0)

        dpo, best = seeded(OnPolicyDpoSpec()), seeded(RejectionSamplingSpec())
        reference, theirs = (
            reference_logprobs_of(pairs, self.lora, self.base, self.shop, self.load) for pairs in (own, teachers)
        )
        orders = {
            OWN: TrainingRequest("on_policy_dpo_adapter", dpo, self.base, own, self.lora, reference),
            CONTROL: TrainingRequest(
                "control", control_spec(dpo), self.base, own, self.lora, reference, role="control"
            ),
            BEST: TrainingRequest("best_of_8", best, self.base, own, self.lora),
            TEACHERS: TrainingRequest("dpo_adapter", seeded(DpoSpec()), self.base, teachers, self.lora, theirs),
            REJECTION: TrainingRequest("rejection_sampling_adapter", best, self.base, teachers, self.lora),
        }
        return {name: train_or_load_adapter(order, self.shop, self.load)[0] for name, order in orders.items()}

    def _own_pairs(self, seed: int) -> pl.DataFrame:
        """As the assets make them: best and worst of four of the policy's responses and four of the teacher's."""
        spec, folder = replace(self.hardware.spec(OnPolicyCandidateSpec()), seed=seed), self.home.shards("preference")
        rows = instructions_to_sample(self.table("sft_dataset"), spec)
        policy = self.inference.generator(self.base, self.shop.root / self.lora.path)
        sampled = sample_candidates(rows, policy, spec, folder, quiet)
        reward = RewardModels(hardware=self.hardware).load(self.inference.resolve("reward"))
        scored = score_candidates(sampled.paths, reward, folder, quiet)
        both = pl.concat([scored, self.table("response_candidates")]).collect()
        pairs = build_pairs(both, PAIRS.to_frame(), self.hardware.spec(PairSpec())).pairs
        bias = ", ".join(f"{name} {value:.2f}" for name, value in length_bias(pairs).items())
        print(f"seed {seed}: {pairs.height} pairs, {bias}; mean reward of the policy's responses "
              f"{scored.select(pl.col('reward').mean()).collect().item():.3f}", flush=True)  # fmt: skip
        return pairs

    def scores(self, adapter: AdapterRecord, temperature: float) -> pl.DataFrame:
        """(item_id, cluster, score) of one adapter; kept by its files and the decoding."""
        folder = self.shop.root / adapter.path
        engine = self.inference.engine(folder)
        subject = EvaluatedModel(
            adapter.name,
            adapter.fingerprint,
            adapter.fingerprint,
            engine,
            lambda: self.inference.generator(self.base, folder),
            lambda: self.inference.load_adapted(self.base, folder),
        )
        spec = replace(self.hardware.spec(EvaluationSpec()), temperature=temperature)
        found = score_model(subject, self.items, spec, folder=self.home.shards("evaluation"), progress=quiet)
        return found.filter(metric=METRIC).select("item_id", "cluster", "score").sort("item_id")


def report(of: Mapping[tuple[str, int], pl.DataFrame], decoding: str) -> None:
    """Each adapter by seed, then the on-policy DPO against each other one."""
    names = list(dict.fromkeys(name for name, _ in of))
    seeds = list(dict.fromkeys(seed for _, seed in of))
    n = of[names[0], seeds[0]].height
    print(f"\n{decoding}, {METRIC}, n = {n}, seeds {', '.join(map(str, seeds))}")
    for name in names:
        each = [fmean(of[name, seed]["score"]) for seed in seeds]
        print(f"  {name:20} {fmean(each):.3f}  ({', '.join(f'{value:.3f}' for value in each)})")
    for other in names[1:]:
        clusters = of[OWN, seeds[0]]["cluster"].to_list()
        mine, theirs = (
            [fmean(item) for item in zip(*(of[x, s]["score"] for s in seeds), strict=True)] for x in (OWN, other)
        )
        drawn = paired_bootstrap(theirs, mine, clusters)
        exact = [mcnemar([*(of[other, s]["score"] == 1)], [*(of[OWN, s]["score"] == 1)]).p_value for s in seeds]
        print(f"  {OWN} over {other:20} {drawn.difference:+.3f}, bootstrap by cluster p = {drawn.p_value:.4f}; "
              f"McNemar by seed p = {', '.join(f'{p:.3f}' for p in exact)}", flush=True)  # fmt: skip


def main() -> None:
    """Train, score and compare."""
    home = Path(sys.argv[1]).resolve()
    set_up_process(home, "cpu")
    study = Study(home)
    seeds = [int(one) for one in sys.argv[2:]] or list(SEEDS)
    adapters = {(name, seed): record for seed in seeds for name, record in study.adapters(seed).items()}
    for decoding, temperature in DECODINGS.items():
        report({key: study.scores(record, temperature) for key, record in adapters.items()}, decoding)


if __name__ == "__main__":
    main()
