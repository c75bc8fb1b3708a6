"""Magpie: a chat model that continues the opening of a user's turn invents an instruction, then answers it.

Xu et al. 2024, arXiv 2406.08464. Later turns come by the same method: the model continues the conversation where the
user would speak next. Rows are made in whole blocks, so that a table with more samples begins with the very rows of
the one with fewer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from synth_assets.evals.training_constraints import constraints_revision, with_constraints
from synth_assets.llm.chat_encoding import ChatTemplateError
from synth_assets.llm.prompt_formats import PromptFormat, family
from synth_assets.llm.protocols import Completion, Sampling, TextGenerator
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.stages.generation.seeds import row_id, row_seed
from synth_assets.stages.generation.spec import MagpieSpec, constraints_of, drawn_by, topic_of, turns_of
from synth_assets.storage.blocks import BLOCK_ROWS, Block, Progress, compute_blocks
from synth_assets.storage.budgets import WorkBudget

SOURCE = "magpie"
GENERATION_VERSION = (
    1  # raise it when the same spec would give other rows, whatever the family; for one see Family.recipe
)


class Generated(NamedTuple):
    """The rows of a batch, and how many tokens had to be generated for them now."""

    rows: pl.LazyFrame
    new_tokens: int


class Exchange(NamedTuple):
    """What the user said and what came back; no answer to an empty text."""

    asked: Completion
    answered: Completion | None

    @property
    def tokens(self) -> int:
        """Tokens of both texts."""
        return self.asked.completion_tokens + (self.answered.completion_tokens if self.answered else 0)

    @property
    def ended_well(self) -> bool:
        """Whether both texts say something and ended by themselves, so that a conversation can go on from them."""
        both = (self.asked, self.answered)
        return all(c is not None and c.finish_reason == "stop" and c.text.strip() for c in both)

    def turns(self) -> list[dict[str, str]]:
        """The exchange as turns of a conversation."""
        said = self.answered.text.strip() if self.answered else ""
        return [{"role": "user", "content": self.asked.text.strip()}, {"role": "assistant", "content": said}]


@dataclass
class Conversation:
    """A row in the making."""

    seed: int
    topic: str | None
    wanted: int  # exchanges
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether another exchange is wanted and the last one can be gone on from."""
        return len(self.exchanges) < self.wanted and all(exchange.ended_well for exchange in self.exchanges)

    def said(self) -> list[dict[str, str]]:
        """All turns so far."""
        return [turn for exchange in self.exchanges for turn in exchange.turns()]

    def add(self, exchange: Exchange) -> None:
        """Take an exchange in; a later one that did not end well ends the conversation before it.

        The first is kept whatever it is: a row that is cut is judged and counted, not hidden.
        """
        if self.exchanges and not exchange.ended_well:
            self.wanted = len(self.exchanges)
        else:
            self.exchanges.append(exchange)


def generate(  # noqa: PLR0913 - what is made, by what, where, and within which limits
    generator: TextGenerator,
    spec: MagpieSpec,
    batch: str,
    template: str,
    folder: Path,
    progress: Progress,
    *,
    budget: WorkBudget | None = None,
) -> Generated:
    """The first `spec.samples` rows of a batch, in order of their index; only missing blocks are computed.

    Args:
        generator: the teacher.
        spec: how rows are drawn; raising `samples` alone keeps every row.
        batch: the partition key; two batches share no seed and no row id.
        template: key of FAMILIES for the teacher.
        folder: where shards lie.
        progress: receives progress lines.
        budget: is asked before each missing block.

    Raises:
        BudgetError: the limit is reached; finished blocks are kept.
        ValueError: no family of that name, or topics for a family that takes no system turn.
    """
    row = family(template)
    if any(spec.topics.values()) and not row.system:
        raise ValueError(
            f"topics steer by a system prompt and models of the family {template} know none: leave MagpieSpec.topics "
            "out, or choose a teacher that takes a system turn"
        )
    maker = _RowMaker(generator, spec, batch, template, row)
    starts = range(0, spec.samples, BLOCK_ROWS)
    blocks = [Block(maker.key(start), BLOCK_ROWS, range(start, start + BLOCK_ROWS)) for start in starts]
    paths = compute_blocks(blocks, maker.make, folder, what="instructions", progress=progress, budget=budget)
    rows = pl.scan_parquet(paths, glob=False).select(INSTRUCTIONS.names()).head(spec.samples)
    return Generated(rows, maker.new_tokens)


class _RowMaker:
    """Makes blocks of rows with one generator, spec and batch."""

    def __init__(
        self, generator: TextGenerator, spec: MagpieSpec, batch: str, template: str, row: PromptFormat
    ) -> None:
        self.generator, self.spec, self.batch, self.template, self.family = generator, spec, batch, template, row
        recipe = (
            [GENERATION_VERSION, row.recipe] if row.recipe > 1 else [GENERATION_VERSION]
        )  # rows of the first recipe keep their ids
        made_by = [*recipe, generator.model, generator.revision]
        if spec.constrained_share:
            made_by.append(constraints_revision())
        self.made_from = fingerprint(drawn_by(spec), made_by, row.pre_query, row.stop, row.banned_first)
        self.new_tokens = 0

    def key(self, start: int) -> str:
        """The key of the block that begins with row `start`; unlike a row's id it changes with engine and columns."""
        return fingerprint("magpie", self.made_from, self.generator.engine, self.batch, start, INSTRUCTIONS.names())

    def make(self, indices: range) -> pl.DataFrame:
        """The rows of a block: turn by turn, a user's text for all that go on, then the answers."""
        seeds = [row_seed(self.spec.seed, self.batch, index) for index in indices]
        block = [Conversation(seed, topic_of(seed, self.spec), turns_of(seed, self.spec)) for seed in seeds]
        for turn in range(self.spec.turns):
            going = [one for one in block if one.goes_on]
            if turn:
                going = self._with_room(going)
            asked = self._constrained(going, self._instructions(going, turn))
            answered = self._responses(going, asked, turn)
            for one, said, answer in zip(going, asked, answered, strict=True):
                exchange = Exchange(said, answer)
                one.add(exchange)
                self.new_tokens += exchange.tokens
        return pl.DataFrame([self._row(one) for one in block], schema=INSTRUCTIONS)

    def _with_room(self, going: Sequence[Conversation]) -> list[Conversation]:
        """Those whose next exchange fits the context at its longest, so that no text is cut but by its own limit."""
        longest = self.spec.max_instruction_tokens + self.spec.max_response_tokens
        opened = [len(self._opening(one)) for one in going]
        return [
            one for one, tokens in zip(going, opened, strict=True) if tokens + longest <= self.generator.context_tokens
        ]

    def _opening(self, one: Conversation) -> list[int]:
        """The prompt up to where the user speaks, as the teacher's own chat template writes it.

        A template that writes a default system message (SmolLM2's, Qwen2.5's) writes it here too: without it the model
        continues a text that it was never trained on.
        """
        system = self.spec.topics.get(one.topic, "") if one.topic else ""
        steering = [{"role": "system", "content": system}] if system else []
        return self.generator.encode_user_turn([*steering, *one.said()])

    def _instructions(self, going: Sequence[Conversation], turn: int) -> list[Completion]:
        banned = [self.generator.encode_template(text) for text in self.family.banned_first]
        sampling = Sampling(
            temperature=self.spec.temperature,
            top_p=self.spec.top_p,
            max_tokens=self.spec.max_instruction_tokens,
            stop=self.family.stop,
            banned_first=tuple(ids[0] for ids in banned if len(ids) == 1),
        )
        seeds = [row_seed(one.seed, "instruction", turn) if turn else one.seed for one in going]
        return self.generator.generate([self._opening(one) for one in going], seeds, sampling) if going else []

    def _constrained(self, going: Sequence[Conversation], asked: Sequence[Completion]) -> list[Completion]:
        """The instructions, with their constraints where a row of one exchange has some."""
        found = []
        for one, completion in zip(going, asked, strict=True):
            text = completion.text.strip()
            constraints = constraints_of(one.seed, self.spec) if one.wanted == 1 and text else []
            found.append(replace(completion, text=with_constraints(text, constraints)) if constraints else completion)
        return found

    def _responses(
        self, going: Sequence[Conversation], asked: Sequence[Completion], turn: int
    ) -> list[Completion | None]:
        """Answers to the texts that say something and that the chat template takes; None for the others."""
        encoded = [self._prompt(one, completion.text.strip()) for one, completion in zip(going, asked, strict=True)]
        places, prompts = [at for at, ids in enumerate(encoded) if ids], [ids for ids in encoded if ids]
        sampling = Sampling(
            temperature=self.spec.response_temperature,
            top_p=self.spec.top_p,
            max_tokens=self.spec.max_response_tokens,
            stop=self.family.stop,
        )
        # another stream than the instruction's, or its first tokens would be drawn by the same noise
        seeds = [row_seed(going[at].seed, "response", turn) for at in places]
        given = self.generator.generate(prompts, seeds, sampling) if places else []
        answers: list[Completion | None] = [None] * len(asked)
        for at, completion in zip(places, given, strict=True):
            answers[at] = completion
        return answers

    def _prompt(self, one: Conversation, text: str) -> list[int]:
        """Return the token ids to answer a text with; none where it is empty or the chat template refuses it."""
        if not text:
            return []
        try:
            return self.generator.encode_chat([*one.said(), {"role": "user", "content": text}])
        except ChatTemplateError:
            return []

    def _row(self, one: Conversation) -> dict[str, object]:
        *earlier, (asked, answered) = one.exchanges
        return {
            "row_id": row_id(one.seed, self.made_from),
            "source": SOURCE,
            "batch": self.batch,
            "history": [turn for exchange in earlier for turn in exchange.turns()],
            "instruction": asked.text.strip(),
            "response": answered.text.strip() if answered else "",
            "model": self.generator.model,
            "revision": self.generator.revision,
            "engine": self.generator.engine,
            "template": self.template,
            "topic": one.topic,
            "seed": one.seed,
            "temperature": self.spec.temperature,
            "response_temperature": self.spec.response_temperature,
            "top_p": self.spec.top_p,
            "instruction_tokens": asked.completion_tokens,
            "response_tokens": answered.completion_tokens if answered else 0,
            "history_tokens": sum(exchange.tokens for exchange in earlier),
            "instruction_finish_reason": asked.finish_reason,
            "response_finish_reason": answered.finish_reason if answered else None,
        }
