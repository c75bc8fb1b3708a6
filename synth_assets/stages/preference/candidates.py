"""Sample several responses of a model to each training instruction, and score them with the reward model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from synth_assets.llm.chat_encoding import ChatTemplateError
from synth_assets.llm.protocols import Message, RewardModel, Sampling, TextGenerator
from synth_assets.schemas.records import AdapterRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.schemas.tables import CANDIDATES
from synth_assets.storage.blocks import BLOCK_ROWS, Block, Progress, compute_blocks
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.manifests import read_manifest

SAMPLING_VERSION = 2  # increment when the same spec gives other rows


@dataclass(frozen=True)
class CandidateSpec:
    """Number of instructions, and the temperatures at which one response each is sampled.

    A candidate that is truncated at `max_response_tokens` forms no pair.
    """

    instructions: int = setting(1_000, "Most training instructions that get responses.")
    temperatures: tuple[float, ...] = setting((0.6, 0.8, 1.0, 1.2), "One response is sampled at each temperature.")
    top_p: float = setting(1.0, "Nucleus of the sampling, in (0, 1].")
    max_response_tokens: int = setting(1_024, "Longest response in tokens; a truncated one makes no pair.")
    seed: int = setting(42, "Seed of the responses.")

    def __post_init__(self) -> None:
        """Raise ValueError with the name of an invalid field."""
        for name in ("instructions", "max_response_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"CandidateSpec.{name} must be at least 1, got {getattr(self, name)}")
        if len(self.temperatures) < 2:
            raise ValueError(f"CandidateSpec.temperatures must have at least 2 values, got {self.temperatures}")
        if any(not 0 < temperature <= 2 for temperature in self.temperatures):
            raise ValueError(f"CandidateSpec.temperatures must be in (0, 2], got {self.temperatures}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"CandidateSpec.top_p must be in (0, 1], got {self.top_p}")


@dataclass(frozen=True)
class OnPolicyCandidateSpec(CandidateSpec):
    """Settings for the responses of an adapter: all at temperature 1, so that they follow its own distribution."""

    temperatures: tuple[float, ...] = setting((1.0, 1.0, 1.0, 1.0), "One response is sampled at each temperature.")


CANDIDATES_CODE_VERSION = fingerprint(SAMPLING_VERSION, CandidateSpec())
ON_POLICY_CODE_VERSION = fingerprint(SAMPLING_VERSION, OnPolicyCandidateSpec())


class Sampled(NamedTuple):
    """Files of candidates without rewards, and the number of newly generated tokens."""

    paths: list[Path]
    new_tokens: int


def policy_folder(policy: AdapterRecord, root: Path) -> Path | None:
    """Return the verified folder of an on-policy round's adapter, None if its training failed.

    Raises:
        ManifestError: its files do not match its manifest.
    """
    if policy.failure:
        return None
    read_manifest(root / policy.path)
    return root / policy.path


def instructions_to_sample(sft_rows: pl.LazyFrame, spec: CandidateSpec) -> pl.DataFrame:
    """Return `row_id`, `group`, `history` and `instruction` of the training rows that get candidates, in order.

    More rows than the spec's limit are sampled by hash of each row, so that a growing dataset keeps most of the sample.
    """
    train = sft_rows.filter(pl.col("split") == "train")
    rows = train.select("row_id", "group", "history", "instruction").collect()
    if rows.height <= spec.instructions:
        return rows
    ranks = pl.Series("rank", [fingerprint("sample", spec.seed, row_id) for row_id in rows["row_id"]])
    return rows.with_columns(ranks).filter(pl.col("rank").rank("ordinal") <= spec.instructions).drop("rank")


def sample_candidates(
    rows: pl.DataFrame,
    generator: TextGenerator,
    spec: CandidateSpec,
    folder: Path,
    progress: Progress,
    budget: WorkBudget | None = None,
) -> Sampled:
    """Sample one response per temperature for each row of `instructions_to_sample`; only compute missing blocks.

    Raises:
        BudgetError: the limit is reached; finished blocks are kept.
    """
    sampler = _Sampler(generator, spec)
    blocks = [Block(sampler.key(part), len(part), part) for part in blocks_by_content(rows.to_dicts())]
    paths = compute_blocks(blocks, sampler.make, folder, what="instructions", progress=progress, budget=budget)
    return Sampled(paths, sampler.new_tokens)


def score_candidates(
    sampled: Sequence[Path], reward: RewardModel, folder: Path, progress: Progress, budget: WorkBudget | None = None
) -> pl.LazyFrame:
    """Return the candidates of `sample_candidates` with their rewards; NaN stays NaN.

    Rewards are stored in separate blocks, so that another reward model can score the same responses.

    Raises:
        BudgetError: the limit is reached; finished blocks are kept.
    """

    def score(path: Path) -> pl.DataFrame:
        texts = pl.read_parquet(path, glob=False)
        histories = texts["history"].to_list()
        pairs = list(zip(texts["instruction"], texts["response"], strict=True))
        rewards = reward.score(pairs, histories if any(histories) else ())
        return texts.with_columns(pl.Series("reward", rewards, dtype=pl.Float64)).select(CANDIDATES.names())

    blocks = [
        Block(fingerprint("rewards", path.name, reward.model, reward.revision), _row_count(path), path)
        for path in sampled
    ]  # a file's name has the hash of its bytes
    paths = compute_blocks(blocks, score, folder, what="rewards", progress=progress, budget=budget)
    return pl.scan_parquet(paths, glob=False) if paths else pl.LazyFrame(schema=CANDIDATES)


def blocks_by_content(rows: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Yield consecutive blocks with content-defined boundaries (by row id), at most twice BLOCK_ROWS long.

    An added or removed row changes only its block; fixed offsets would shift all later blocks.
    """
    start = 0
    for end, row in enumerate(rows, start=1):
        is_edge = int(fingerprint("edge", row["row_id"]), 16) % BLOCK_ROWS == 0
        if is_edge or end - start == 2 * BLOCK_ROWS or end == len(rows):
            yield rows[start:end]
            start = end


class _Sampler:
    """Sample the candidates of a block of rows."""

    def __init__(self, generator: TextGenerator, spec: CandidateSpec) -> None:
        self.generator, self.spec = generator, spec
        settings = [spec.temperatures, spec.top_p, spec.max_response_tokens, spec.seed]
        self.spec_fingerprint = fingerprint(SAMPLING_VERSION, settings, generator.model, generator.revision)
        self.new_tokens = 0

    def key(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return the key of a block; unlike candidate ids, it also depends on the engine."""
        return fingerprint("candidates", self.spec_fingerprint, self.generator.engine, list(rows))

    def make(self, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Sample all candidates of a block, grouped by instruction in the order of the temperatures.

        An instruction whose prompt fills the context, or that the chat template refuses, gets none.
        """
        conversations = [[*row["history"], {"role": "user", "content": row["instruction"]}] for row in rows]
        encoded = [(row, self._prompt(turns)) for row, turns in zip(rows, conversations, strict=True)]
        fitting = [(row, prompt) for row, prompt in encoded if 0 < len(prompt) < self.generator.context_tokens]
        rows, prompts = [row for row, _ in fitting], [prompt for _, prompt in fitting]
        draws_by_temperature = [self._draw(rows, prompts, draw) for draw in range(len(self.spec.temperatures))]
        records = [draws[index] for index in range(len(rows)) for draws in draws_by_temperature]
        return pl.DataFrame(records, schema=CANDIDATES)

    def _prompt(self, turns: Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt; empty if the chat template refuses the turns."""
        try:
            return self.generator.encode_chat(turns)
        except ChatTemplateError:
            return []

    def _draw(
        self, rows: Sequence[Mapping[str, Any]], prompts: Sequence[Sequence[int]], draw: int
    ) -> list[dict[str, Any]]:
        temperature = self.spec.temperatures[draw]
        ids = [fingerprint("candidate", self.spec.seed, row["row_id"], draw) for row in rows]
        seeds = [int(identity, 16) >> 1 for identity in ids]
        sampling = Sampling(temperature, self.spec.top_p, self.spec.max_response_tokens)
        answers = self.generator.generate(prompts, seeds, sampling)
        self.new_tokens += sum(answer.completion_tokens for answer in answers)
        return [
            {
                "candidate_id": fingerprint(identity, self.spec_fingerprint),
                "row_id": row["row_id"],
                "group": row["group"],
                "split": "train",
                "history": row["history"],
                "instruction": row["instruction"],
                "response": answer.text.strip(),
                "temperature": temperature,
                "seed": seed,
                "response_tokens": answer.completion_tokens,
                "finish_reason": answer.finish_reason,
                "model": self.generator.model,
                "revision": self.generator.revision,
                "reward": None,
            }
            for identity, row, seed, answer in zip(ids, rows, seeds, answers, strict=True)
        ]


def _row_count(path: Path) -> int:
    return pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
