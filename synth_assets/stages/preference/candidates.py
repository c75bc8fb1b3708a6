"""Several responses of a model to each training instruction, and what a reward model thinks of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from synth_assets.llm.chat_encoding import ChatTemplateError
from synth_assets.llm.protocols import Message, RewardModel, Sampling, TextGenerator
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.schemas.tables import CANDIDATES
from synth_assets.storage.blocks import BLOCK_ROWS, Block, Progress, compute_blocks
from synth_assets.storage.budgets import WorkBudget

SAMPLING_VERSION = 1  # raise it when the same spec would give other rows


@dataclass(frozen=True)
class CandidateSpec:
    """How many instructions get candidates, and at which temperatures one response each is drawn.

    Four temperatures and 1,000 instructions are the settings of the study this project grew from; a candidate that
    is cut at `max_response_tokens` makes no pair.
    """

    instructions: int = setting(1_000, "Most training instructions that get responses.")
    temperatures: tuple[float, ...] = setting((0.6, 0.8, 1.0, 1.2), "One response is sampled at each temperature.")
    top_p: float = setting(1.0, "Nucleus of the sampling, in (0, 1].")
    max_response_tokens: int = setting(1_024, "Longest response in tokens; a truncated one makes no pair.")
    seed: int = setting(42, "Seed of the responses.")

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the field."""
        for name in ("instructions", "max_response_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"CandidateSpec.{name} is {getattr(self, name)}; it must be at least 1")
        if len(self.temperatures) < 2:
            raise ValueError(f"CandidateSpec.temperatures is {self.temperatures}; a pair needs two responses")
        if any(not 0 < temperature <= 2 for temperature in self.temperatures):
            raise ValueError(f"CandidateSpec.temperatures is {self.temperatures}; each is above 0 and at most 2")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"CandidateSpec.top_p is {self.top_p}; it must be above 0 and at most 1")


@dataclass(frozen=True)
class OnPolicyCandidateSpec(CandidateSpec):
    """The same for the responses of an adapter, drawn as it speaks: all at temperature 1, so that they are its own."""

    temperatures: tuple[float, ...] = setting((1.0, 1.0, 1.0, 1.0), "One response is sampled at each temperature.")


class Sampled(NamedTuple):
    """Shards of candidates without rewards, and how many tokens had to be generated for them now."""

    paths: list[Path]
    new_tokens: int


def instructions_to_sample(sft_rows: pl.LazyFrame, spec: CandidateSpec) -> pl.DataFrame:
    """The training rows that get candidates: `row_id`, `group`, `history`, `instruction`, in the order of the dataset.

    Where there are more than the spec asks for, a sample is taken that depends on each row alone, so that a growing
    dataset keeps most of it.
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
    """One response per temperature for each row of `instructions_to_sample`; only missing blocks are computed.

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
    """The candidates of `sample_candidates` with the reward filled; NaN stays NaN.

    Rewards are shards of their own: another reward model scores the same responses.

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
        Block(fingerprint("rewards", path.name, reward.model, reward.revision), _rows(path), path) for path in sampled
    ]  # a shard's name holds the hash of its bytes
    paths = compute_blocks(blocks, score, folder, what="rewards", progress=progress, budget=budget)
    return pl.scan_parquet(paths, glob=False) if paths else pl.LazyFrame(schema=CANDIDATES)


def blocks_by_content(rows: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Consecutive blocks that end where a row's own id says so, at most twice BLOCK_ROWS long.

    A row that comes or goes changes the block it stands in and leaves the others, which fixed offsets would not.
    """
    start = 0
    for end, row in enumerate(rows, start=1):
        is_edge = int(fingerprint("edge", row["row_id"]), 16) % BLOCK_ROWS == 0
        if is_edge or end - start == 2 * BLOCK_ROWS or end == len(rows):
            yield rows[start:end]
            start = end


class _Sampler:
    """Draws the candidates of a block of rows."""

    def __init__(self, generator: TextGenerator, spec: CandidateSpec) -> None:
        self.generator, self.spec = generator, spec
        drawn = [spec.temperatures, spec.top_p, spec.max_response_tokens, spec.seed]
        self.made_from = fingerprint(SAMPLING_VERSION, drawn, generator.model, generator.revision)
        self.new_tokens = 0

    def key(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """The key of a block; it changes with any row of it, and unlike a candidate's id with the engine."""
        return fingerprint("candidates", self.made_from, self.generator.engine, list(rows))

    def make(self, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """All candidates of a block: each instruction's together, in the order of the temperatures.

        An instruction that fills the model's context with what was said before it gets none, nor does one that its
        chat template refuses.
        """
        asked = [[*row["history"], {"role": "user", "content": row["instruction"]}] for row in rows]
        encoded = [(row, self._prompt(turns)) for row, turns in zip(rows, asked, strict=True)]
        fitting = [(row, prompt) for row, prompt in encoded if 0 < len(prompt) < self.generator.context_tokens]
        rows, prompts = [row for row, _ in fitting], [prompt for _, prompt in fitting]
        drawn = [self._draw(rows, prompts, draw) for draw in range(len(self.spec.temperatures))]
        in_order = [draws[at] for at in range(len(rows)) for draws in drawn]
        return pl.DataFrame(in_order, schema=CANDIDATES)

    def _prompt(self, turns: Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt; none where the chat template refuses the turns."""
        try:
            return self.generator.encode_chat(turns)
        except ChatTemplateError:
            return []

    def _draw(
        self, rows: Sequence[Mapping[str, Any]], prompts: Sequence[Sequence[int]], draw: int
    ) -> list[dict[str, Any]]:
        temperature = self.spec.temperatures[draw]
        ids = [fingerprint("candidate", self.spec.seed, row["row_id"], draw) for row in rows]
        seeds = [int(one, 16) >> 1 for one in ids]
        sampling = Sampling(temperature, self.spec.top_p, self.spec.max_response_tokens)
        answers = self.generator.generate(prompts, seeds, sampling)
        self.new_tokens += sum(answer.completion_tokens for answer in answers)
        return [
            {
                "candidate_id": fingerprint(one, self.made_from),
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
            for one, row, seed, answer in zip(ids, rows, seeds, answers, strict=True)
        ]


def _rows(path: Path) -> int:
    return pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
