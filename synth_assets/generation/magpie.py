"""Magpie: a chat model that continues the opening of a user's turn invents an instruction, then answers it.

Xu et al. 2024, arXiv 2406.08464. Rows are made in whole blocks, so that a table with more samples begins with the
very rows of the one with fewer.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from synth_assets.families import Family, family
from synth_assets.generation.seeds import row_id, row_seed
from synth_assets.protocols import Completion, Sampling, TextGenerator
from synth_assets.records import INSTRUCTIONS, fingerprint
from synth_assets.shards import BLOCK_ROWS, Block, Progress, compute_blocks

SOURCE = "magpie"
RECIPE = 1  # raise it when the same spec would give other rows


@dataclass(frozen=True)
class MagpieSpec:
    """How many instructions are made, and how they are drawn.

    The number of samples is that of the study this project grew from; temperatures and nucleus follow Magpie's own
    runs (instruction T 0.8-1.0, top-p 1.0; answers nearer to greedy). Lengths are in tokens of the teacher: of a
    published run of Llama-3.1-8B-Instruct with 256 for answers most were cut, and a cut answer is a lost row.
    """

    samples: int = 1_500
    temperature: float = 1.0
    response_temperature: float = 0.7
    top_p: float = 1.0
    max_instruction_tokens: int = 256
    max_response_tokens: int = 1_024
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the field."""
        for name in ("samples", "max_instruction_tokens", "max_response_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"MagpieSpec.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("temperature", "response_temperature"):
            if not 0 <= getattr(self, name) <= 2:
                raise ValueError(f"MagpieSpec.{name} is {getattr(self, name)}; it must be within 0 and 2")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"MagpieSpec.top_p is {self.top_p}; it must be above 0 and at most 1")


class Generated(NamedTuple):
    """The rows of a batch, and how many tokens had to be generated for them now."""

    rows: pl.LazyFrame
    new_tokens: int


def generate(
    generator: TextGenerator, spec: MagpieSpec, batch: str, template: str, folder: Path, progress: Progress
) -> Generated:
    """The first `spec.samples` rows of a batch, in order of their index; only missing blocks are computed.

    Args:
        generator: the teacher.
        spec: how rows are drawn; raising `samples` alone keeps every row.
        batch: the partition key; two batches share no seed and no row id.
        template: key of FAMILIES for the teacher.
        folder: where shards lie.
        progress: receives progress lines.

    Raises:
        ValueError: no family of that name.
    """
    maker = _RowMaker(generator, spec, batch, template, family(template))
    starts = range(0, spec.samples, BLOCK_ROWS)
    blocks = [Block(maker.key(start), BLOCK_ROWS, range(start, start + BLOCK_ROWS)) for start in starts]
    paths = compute_blocks(blocks, maker.make, folder, what="instructions", progress=progress)
    rows = pl.scan_parquet(paths, glob=False).select(INSTRUCTIONS.names()).head(spec.samples)
    return Generated(rows, maker.new_tokens)


class _RowMaker:
    """Makes blocks of rows with one generator, spec and batch."""

    def __init__(self, generator: TextGenerator, spec: MagpieSpec, batch: str, template: str, row: Family) -> None:
        self.generator, self.spec, self.batch, self.template, self.family = generator, spec, batch, template, row
        recipe = {name: value for name, value in asdict(spec).items() if name != "samples"}
        made_by = [RECIPE, generator.model, generator.revision]
        self.made_from = fingerprint(recipe, made_by, row.pre_query, row.stop, row.banned_first)
        self.new_tokens = 0

    def key(self, start: int) -> str:
        """The key of the block that begins with row `start`; unlike a row's id it changes with the engine."""
        return fingerprint("magpie", self.made_from, self.generator.engine, self.batch, start)

    def make(self, indices: range) -> pl.DataFrame:
        """The rows of a block: instructions from the pre-query template, then answers through the chat template."""
        seeds = [row_seed(self.spec.seed, self.batch, index) for index in indices]
        asked = self._instructions(seeds)
        texts = [completion.text.strip() for completion in asked]
        answered = self._responses(texts, seeds)
        self.new_tokens += sum(c.completion_tokens for c in [*asked, *answered] if c)
        rows = [self._row(*parts) for parts in zip(seeds, texts, asked, answered, strict=True)]
        return pl.DataFrame(rows, schema=INSTRUCTIONS)

    def _instructions(self, seeds: Sequence[int]) -> list[Completion]:
        prompt = self.generator.encode_template(self.family.pre_query)
        banned = [self.generator.encode_template(text) for text in self.family.banned_first]
        sampling = Sampling(
            temperature=self.spec.temperature,
            top_p=self.spec.top_p,
            max_tokens=self.spec.max_instruction_tokens,
            stop=self.family.stop,
            banned_first=tuple(ids[0] for ids in banned if len(ids) == 1),
        )
        return self.generator.generate([prompt] * len(seeds), seeds, sampling)

    def _responses(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Completion | None]:
        """Answers to the instructions that say something; None for the empty ones."""
        asked = [at for at, text in enumerate(texts) if text]
        prompts = [self.generator.encode_chat([{"role": "user", "content": texts[at]}]) for at in asked]
        sampling = Sampling(
            temperature=self.spec.response_temperature,
            top_p=self.spec.top_p,
            max_tokens=self.spec.max_response_tokens,
            stop=self.family.stop,
        )
        # another stream than the instruction's, or its first tokens would be drawn by the same noise
        answer_seeds = [row_seed(seeds[at], "response", 0) for at in asked]
        given = self.generator.generate(prompts, answer_seeds, sampling) if asked else []
        answers: list[Completion | None] = [None] * len(texts)
        for at, completion in zip(asked, given, strict=True):
            answers[at] = completion
        return answers

    def _row(self, seed: int, text: str, asked: Completion, answered: Completion | None) -> dict[str, object]:
        return {
            "row_id": row_id(seed, self.made_from),
            "source": SOURCE,
            "batch": self.batch,
            "history": [],
            "instruction": text,
            "response": answered.text.strip() if answered else "",
            "model": self.generator.model,
            "revision": self.generator.revision,
            "engine": self.generator.engine,
            "template": self.template,
            "seed": seed,
            "temperature": self.spec.temperature,
            "response_temperature": self.spec.response_temperature,
            "top_p": self.spec.top_p,
            "instruction_tokens": asked.completion_tokens,
            "response_tokens": answered.completion_tokens if answered else 0,
            "instruction_finish_reason": asked.finish_reason,
            "response_finish_reason": answered.finish_reason if answered else None,
        }
